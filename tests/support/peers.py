"""The real programs that tests meet, and where each comes from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

CONFORMANCE_PACKAGE = (
    "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111"  # main of 2026-08
)

# name of the peer: (programs it needs, how to get them)
PEERS: dict[str, tuple[tuple[str, ...], str]] = {
    "docker": (("docker", "dockerd"), "apt-get install docker.io"),
    "docker-registry": (("docker-registry",), "apt-get install docker-registry"),
    "skopeo": (("skopeo",), "apt-get install skopeo"),
    "podman": (("podman",), "apt-get install podman"),
    "containerd": (("containerd", "ctr"), "apt-get install containerd"),
    "curl": (("curl",), "apt-get install curl"),
    "openssl": (("openssl",), "apt-get install openssl"),
    "nginx": (("nginx",), "apt-get install nginx-light"),
    "busybox": (("busybox",), "apt-get install busybox-static"),
    "tmpfs": (("mount", "umount"), "apt-get install mount"),
    "umoci": (("umoci",), "apt-get install umoci"),
    "runc": (("runc",), "apt-get install runc"),
    "crun": (("crun", "unshare"), "apt-get install crun"),
    "debootstrap": (("debootstrap",), "apt-get install debootstrap"),
    "docker-compose": (("docker-compose",), "apt-get install docker-compose"),
    "iproute": (("ip", "tc"), "apt-get install iproute2"),
    "root": ((), "run the tests as root"),
    "conformance": (("conformance",), f"go install {CONFORMANCE_PACKAGE}"),
}
NEEDS_ROOT = {"tmpfs", "docker", "podman", "containerd", "umoci", "runc", "crun", "debootstrap", "iproute", "root"}


def find(program: str) -> str | None:
    """Path of `program` on PATH, in the system's folders or where `go install` puts programs."""
    go = os.environ.get("GOBIN") or str(Path.home() / "go" / "bin")
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", go]))


def missing(peer: str) -> str | None:
    """Why `peer` cannot take part on this machine, or None when it can."""
    programs, remedy = PEERS[peer]
    absent = [program for program in programs if find(program) is None]
    if absent:
        return f"{peer}: {', '.join(absent)} not installed: {remedy}"
    if peer in NEEDS_ROOT and os.geteuid() != 0:
        return f"{peer}: needs root"
    return None


def require_peers() -> bool:
    return os.environ.get("LAYERHOUSE_REQUIRE_PEERS") == "1"
