"""Bundle: an image as an OCI runtime bundle, which runc, crun and others start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from client.caching.cache import Cache
from client.progress import Report, Warned, silent
from client.unpacking.images import Image, found
from client.unpacking.runtime import Start, rootless, runtime_config, with_env
from client.unpacking.staging import Stage, staged
from client.unpacking.tree import Tree
from client.unpacking.unpacking import Unpacked, fill, reading
from client.unpacking.users import User, user_of
from ocispec.errors import ConfigurationError, LayerInvalid, PlatformUnknown
from ocispec.platform import Platform
from ocispec.reference import Reference
from storage.ingest import storage_errors
from storage.threads import acquire, finish

ROOTFS = "rootfs"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle: what was unpacked into its `rootfs`, and the words its container starts with."""

    unpacked: Unpacked
    args: tuple[str, ...]


async def bundle(
    cache: Cache,
    reference: str | Reference,
    folder: str | os.PathLike[str],
    *,
    platform: str | Platform | None = None,
    args: Sequence[str] = (),
    env: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
    report: Report = silent,
) -> Bundled:
    """Makes an OCI runtime bundle: `rootfs`, and config.json from the image's config.

    Nobody but the owner may enter the folder: programs in it may have set-id bits. Made by a user other than root it is
    for that user to start, who is root in there.

    Cancelled at any point, nothing of it is there, or all.

    Args:
        cache: where the image is.
        reference: its name there.
        folder: where the bundle is to be; not there, or empty. Its parent has to be there.
        platform: which image of those under the name; the one for this machine, or the first, unless told.
        args: replace the image's command, not its entrypoint, as those after the image in `docker run` do.
        env: `NAME=value`, or `NAME` with the value that `environment` has, as `docker run --env` has it.
        environment: see `env`.
        report: hears `LayerUnpacked` and `Warned`.

    Raises:
        ConfigurationError: a variable without a name, or there is no command.
        ManifestInvalid: the image's config breaks the specification.
        PlatformUnknown: the image is there for other platforms only, or not for Linux.
        LayerhouseError: see `unpack`.
    """
    async with reading(cache), staged(folder) as stage:
        image = await found(cache, reference, platform)
        start, words = _start(image, args)
        unpacked = await _make(stage, image, start, words, with_env(start.env, env, environment), report=report)
        await finish(stage.commit)
    return Bundled(unpacked, words)


async def _make(
    stage: Stage, image: Image, start: Start, words: Sequence[str], env: Sequence[str], *, report: Report
) -> Unpacked:
    unpacked, user = await _fill(stage, image, start, report)
    config = runtime_config(start, user, words, env, _hostname(image.name))
    await finish(_write, stage, rootless(config, os.geteuid(), os.getegid()) if os.geteuid() else config)
    for message in _warnings(start, user):
        report(Warned(None, message))
    return unpacked


def _start(image: Image, args: Sequence[str]) -> tuple[Start, tuple[str, ...]]:
    if image.config.platform and image.config.platform.os != "linux":
        raise PlatformUnknown(f"{image.name} is for {image.config.platform}: expected an image for linux")
    start = Start.of(image.config)
    words = (*start.entrypoint, *(args or start.command))
    if not words:
        raise ConfigurationError(f"{image.name} names no command: give one")
    return start, words


def _warnings(start: Start, user: User) -> Iterator[str]:
    if os.geteuid() and user.uid:
        yield f"it runs as user {user.uid}, which only root can start: runtimes will refuse it"
    if start.refused:
        yield f"left out labels that a runtime would act on: {', '.join(start.refused)}"


async def _fill(stage: Stage, image: Image, start: Start, report: Report) -> tuple[Unpacked, User]:
    def look(tree: Tree) -> User:
        try:
            return user_of(start.user, tree)
        except LayerInvalid as error:
            raise LayerInvalid(f"{image.name}: {error.message}") from error

    root = await acquire(os.close, _rootfs, stage)
    return await fill(root, stage.folder / ROOTFS, image, report, look)


def _rootfs(stage: Stage) -> int:
    with storage_errors(stage.folder):
        os.mkdir(ROOTFS, 0o700, dir_fd=stage.fd)
        return os.open(ROOTFS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage.fd)


def _write(stage: Stage, config: Mapping[str, object]) -> None:
    data = json.dumps(config, indent=2).encode() + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        storage_errors(stage.folder / "config.json"),
        open(os.open("config.json", flags, 0o644, dir_fd=stage.fd), "wb") as file,  # noqa: PTH123 - a descriptor has no path
    ):
        file.write(data)


def _hostname(name: str) -> str:
    return name.rpartition("/")[2].partition("@")[0].partition(":")[0][:63]
