"""config.json of an OCI runtime bundle (runtime-spec 1.0.2), out of an image's config (image-spec, conversion.md).

Capabilities, mounts, and what of /proc and /sys is hidden are docker's and podman's defaults; there is no seccomp
filter and no network but the container's own loopback, as runc's own default has it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.unpacking.users import User
from ocispec.errors import ConfigurationError, GrammarError, ManifestInvalid
from ocispec.manifest import ImageConfig
from ocispec.members import as_list, as_object, as_string, optional_object, optional_string, string_map
from ocispec.strictjson import loads

_VERSION = "1.0.2"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANNOTATION = "org.opencontainers.image."
# Runtimes act on these: crun's handlers and hooks, runc's systemd properties and CRIU's settings. No image may ask.
_ACTED_ON = ("run.oci.", "org.systemd.property.", "org.criu.")
_CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_NAMESPACES = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
# destination, type, source, options
_MOUNTS = [
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),  # noqa: S108 - in the container
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
]


@dataclass(frozen=True, slots=True)
class Start:
    """How an image's container starts; what it says itself, in the types it has to have.

    Attributes:
        entrypoint: words that always come first.
        command: words after those, unless told otherwise.
        env: `NAME=value`, in its order.
        folder: where it starts, absolute.
        user: `user[:group]`, not resolved.
        annotations: labels, and what conversion.md derives; those that a runtime would act on are not among them.
        refused: names of labels that are left out.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    folder: str
    user: str
    annotations: Mapping[str, str]
    refused: tuple[str, ...]

    @classmethod
    def of(cls, config: ImageConfig) -> Start:
        """Reads an image's config.

        Raises:
            ManifestInvalid: a member has another type than the specification gives it.
        """
        try:
            settings = config.settings
            labels = string_map(settings.get("Labels"), "config.Labels")
            refused = tuple(sorted(each for each in labels if each.startswith(_ACTED_ON)))
            return cls(
                _words(settings, "Entrypoint"),
                _words(settings, "Cmd"),
                _words(settings, "Env"),
                _absolute(optional_string(settings.get("WorkingDir"), "config.WorkingDir") or ""),
                optional_string(settings.get("User"), "config.User") or "",
                _derived(config) | {key: value for key, value in labels.items() if key not in refused},
                refused,
            )
        except GrammarError as error:
            raise ManifestInvalid(f"image config invalid: {error}") from error


def with_env(env: Sequence[str], changes: Sequence[str], present: Mapping[str, str]) -> list[str]:
    """Returns variables changed as `docker run --env` does it.

    Args:
        env: `NAME=value`, in their order.
        changes: `NAME=value` sets; `NAME` alone takes the value from `present`, and is unset where that has none.
        present: the caller's environment.

    Raises:
        ConfigurationError: a change without a name.
    """
    values = {each.partition("=")[0]: each for each in env}
    for change in changes:
        name, equals, _ = change.partition("=")
        if not name or "\0" in change:
            raise ConfigurationError(f"invalid variable {change[:80]!r}: expected NAME=value, or NAME")
        if equals or name in present:
            values[name] = change if equals else f"{name}={present[name]}"
        else:
            values.pop(name, None)
    return list(values.values())


def runtime_config(start: Start, user: User, args: Sequence[str], env: Sequence[str], hostname: str) -> dict[str, Any]:
    """Returns config.json, for a runtime that root starts."""
    has_path = any(each.startswith("PATH=") for each in env)
    # A user other than root holds none until a file gives them: so docker and podman have it.
    held = {} if user.uid else {"effective": _CAPABILITIES, "permitted": _CAPABILITIES}
    ids: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    return {
        "ociVersion": _VERSION,
        "process": {
            "terminal": False,
            "user": ids | ({"additionalGids": list(user.groups)} if user.groups else {}),
            "args": list(args),
            "env": [*env] if has_path else [_PATH, *env],
            "cwd": start.folder,
            "capabilities": {"bounding": _CAPABILITIES, **held},
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": hostname,
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": options.split()}
            for destination, kind, source, options in _MOUNTS
        ],
        "annotations": dict(start.annotations),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": each} for each in _NAMESPACES],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def _absolute(folder: str) -> str:
    return "/" + posixpath.normpath(f"/{folder}").lstrip("/")


def rootless(config: dict[str, Any], uid: int, gid: int) -> dict[str, Any]:
    """Returns config.json for a runtime that a user other than root starts: `uid` and `gid` are root's in there.

    There are no others, so nobody else can be run as, and no group, device or resource be given.
    """
    process, linux = config["process"], config["linux"]
    namespaces = [*linux["namespaces"], {"type": "user"}]
    ids = {"uidMappings": [_mapping(uid)], "gidMappings": [_mapping(gid)]}
    user = {name: each for name, each in process["user"].items() if name != "additionalGids"}
    mounts = [
        each | {"options": [option for option in each["options"] if not option.startswith("gid=")]}
        for each in config["mounts"]
    ]
    others = {name: each for name, each in linux.items() if name != "resources"}
    return config | {
        "process": process | {"user": user},
        "mounts": mounts,
        "linux": others | {"namespaces": namespaces} | ids,
    }


def _mapping(outside: int) -> dict[str, int]:
    return {"containerID": 0, "hostID": outside, "size": 1}


def _words(settings: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(
        as_string(each, f"config.{name}[{n}]") for n, each in enumerate(as_list(settings.get(name), f"config.{name}"))
    )


def _derived(config: ImageConfig) -> dict[str, str]:
    fields = as_object(loads(config.raw), "image config")
    names = ("os", "architecture", "variant", "os.version", "author", "created")
    found = {f"{_ANNOTATION}{each}": optional_string(fields.get(each), each) for each in names}
    features = as_list(fields.get("os.features"), "os.features")
    found[f"{_ANNOTATION}os.features"] = ",".join(as_string(each, "os.features") for each in features)
    found[f"{_ANNOTATION}stopSignal"] = optional_string(config.settings.get("StopSignal"), "config.StopSignal")
    ports = optional_object(config.settings.get("ExposedPorts"), "config.ExposedPorts")
    found[f"{_ANNOTATION}exposedPorts"] = ",".join(sorted(ports))
    return {key: value for key, value in found.items() if value}
