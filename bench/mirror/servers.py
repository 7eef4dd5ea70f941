"""Mirrors, ours and docker-registry's, and an upstream behind a link of the kernel's own, in a network namespace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.servers import Distribution, Ours, Telling, find

_LISTENING = re.compile(r"listening on http://(10\.[\d.]+:\d+)")


@dataclass(frozen=True, slots=True)
class Link:
    """A network namespace behind a link: its name, and the address of its end of it."""

    namespace: str
    there: str


_HOSTED = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: '127.0.0.1:0'}}
"""
# Whatever it is called: nobody says it.
_MIRROR = (
    _HOSTED
    + """\
layerhouse:
  mirror:
    default: upstream.example
    upstreams: [{{name: upstream.example, url: 'http://{upstream}', fresh: 1h}}]
"""
)


class Hosted(Ours):
    """`registry serve` by a file, as mirrors are."""

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "config.yml"
        config.write_text(_HOSTED.format(root=self.root))
        return [sys.executable, "-m", "registry", "serve", config]


class Mirror(Ours):
    """`registry serve` as a mirror of one upstream, by names without it (docker's `registry-mirrors`)."""

    name = "mirror"

    def __init__(self, folder: Path, root: Path, upstream: str) -> None:
        super().__init__(folder, root)
        self._upstream = upstream

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "config.yml"
        config.write_text(_MIRROR.format(root=self.root, upstream=self._upstream))
        return [sys.executable, "-m", "registry", "serve", config]


class DistributionMirror(Distribution):
    """docker-registry with `proxy.remoteurl`."""

    def __init__(self, folder: Path, root: Path, upstream: str) -> None:
        super().__init__(folder, root)
        self._upstream = upstream

    def command(self) -> Sequence[str | Path]:
        words = super().command()
        with (self.folder / "config.yml").open("a") as config:
            config.write(f"proxy: {{remoteurl: 'http://{self._upstream}'}}\n")
        return words


class Far(Telling):
    """`registry serve` in a network namespace.

    Attributes:
        host: where it is reached from this one.
    """

    name = "upstream"

    def __init__(self, folder: Path, root: Path, link: Link) -> None:
        super().__init__(folder, root)
        self._link = link
        self.host = ""

    def command(self) -> Sequence[str | Path]:
        inside = [_program("ip"), "netns", "exec", self._link.namespace]
        return [
            *inside,
            sys.executable,
            "-m",
            "registry",
            "serve",
            "--root",
            self.root,
            "--addr",
            f"{self._link.there}:0",
        ]

    def _is_ready(self) -> bool:
        told = _LISTENING.search(self._log.read_text())
        self.host = told[1] if told else ""
        return told is not None


def can_link() -> bool:
    """Whether this machine lets us make a network namespace and a link into it."""
    return os.geteuid() == 0 and bool(find("ip") and find("tc"))


@contextmanager
def link(rate: str) -> Iterator[Link]:
    """Makes a network namespace behind a link that sends so much from there, and removes it whatever happens."""
    # Four addresses for each process that measures.
    first = (os.getpid() & 0x3FFF) * 4
    at, there_at = (f"10.213.{first >> 8}.{(first & 0xFF) + number}" for number in (1, 2))
    name = f"lhbench-{os.getpid()}"
    here, there = f"lhb{os.getpid()}a"[-15:], f"lhb{os.getpid()}b"[-15:]
    with ExitStack() as ending:
        _run("ip", "netns", "add", name)
        # The namespace's end of the link goes with it, and so does this one's.
        ending.callback(_run, "ip", "netns", "del", name)
        _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        _run("ip", "addr", "add", f"{at}/30", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", name, "addr", "add", f"{there_at}/30", "dev", there)
        _run("ip", "-n", name, "link", "set", there, "up")
        shape = ["qdisc", "add", "dev", there, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
        _run("ip", "netns", "exec", name, _program("tc"), *shape)
        yield Link(name, there_at)


def _run(program: str, *words: str) -> None:
    subprocess.run([_program(program), *words], check=True)


def _program(name: str) -> str:
    return find(name) or name
