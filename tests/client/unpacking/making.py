"""Layers and images as the tests of unpacking want them, made by Python's own tarfile; and what a tree looks like."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backports import zstd

from client.caching.cache import Cache
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.platform import Platform

NAME = "a.example/tree:1"
TIME = 1_000_000_000
PACKED = {
    mediatypes.OCI_LAYER: bytes,
    mediatypes.OCI_LAYER_GZIP: lambda data: gzip.compress(data, mtime=0),
    mediatypes.OCI_LAYER_ZSTD: zstd.compress,
}
Member = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes, mode: int, xattrs: Mapping[str, str] | None = None, **more: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, TIME
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
    for key, value in more.items():
        setattr(info, key, value)
    return info


def file(name: str, data: bytes | str = b"", mode: int = 0o644, **more: Any) -> Member:
    body = data.encode() if isinstance(data, str) else data
    return member(name, tarfile.REGTYPE, mode, size=len(body), **more), body


def folder(name: str, mode: int = 0o755, **more: Any) -> Member:
    return member(name, tarfile.DIRTYPE, mode, **more)


def symlink(name: str, target: str, **more: Any) -> Member:
    return member(name, tarfile.SYMTYPE, 0o777, linkname=target, **more)


def hard_link(name: str, target: str, mode: int = 0o644, **more: Any) -> Member:
    return member(name, tarfile.LNKTYPE, mode, linkname=target, **more)


def fifo(name: str, mode: int = 0o644, **more: Any) -> Member:
    return member(name, tarfile.FIFOTYPE, mode, **more)


def device(name: str, major: int, minor: int, kind: bytes = tarfile.CHRTYPE, **more: Any) -> Member:
    return member(name, kind, 0o620, devmajor=major, devminor=minor, **more)


def tar(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for each in members:
            info, body = each if isinstance(each, tuple) else (each, b"")
            archive.addfile(info, io.BytesIO(body))
    return made.getvalue()


async def put(cache: Cache, data: bytes, media_type: str) -> Descriptor:
    digest = Digest.of(data)
    await cache.layout.add(digest, data)
    return Descriptor(media_type, digest, len(data))


async def image(
    cache: Cache,
    *layers: bytes,
    media_type: str = mediatypes.OCI_LAYER_GZIP,
    packed: Sequence[bytes] | None = None,
    name: str = NAME,
    settings: Mapping[str, Any] | None = None,
    diff_ids: Sequence[str] | None = None,
    **fields: Any,
) -> Descriptor:
    """Puts an image of plain tars into a cache; `packed` is what the layers are instead."""
    ids = [str(Digest.of(each)) for each in layers] if diff_ids is None else diff_ids
    rootfs = {"type": "layers", "diff_ids": ids}
    config = {
        "os": "linux",
        "architecture": Platform.here().architecture,
        "config": settings or {},
        "rootfs": rootfs,
    } | fields
    blobs = [PACKED[media_type](each) for each in layers] if packed is None else packed
    members = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": (await put(cache, json.dumps(config).encode(), mediatypes.OCI_CONFIG)).to_json(),
        "layers": [(await put(cache, each, media_type)).to_json() for each in blobs],
    }
    top = await put(cache, json.dumps(members).encode(), mediatypes.OCI_MANIFEST)
    await cache.layout.set_name(name, top)
    return top


def left(place: Path) -> list[str]:
    """Names in a folder, but for the cache's."""
    return sorted(each.name for each in place.iterdir() if each.name != "cache")


def tree(root: Path, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder, and itself: kind, mode, owner, group, time, content, attributes, names of the same."""
    paths = sorted([root, *root.rglob("*")])
    inodes: dict[int, list[str]] = {}
    for each in paths:
        inodes.setdefault(each.lstat().st_ino, []).append(str(each.relative_to(root)))
    return {str(each.relative_to(root)): _told(each, inodes[each.lstat().st_ino], times=times) for each in paths}


def _told(path: Path, names: list[str], *, times: bool) -> tuple[Any, ...]:
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    content: Any = None
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        content = str(path.readlink())
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        content = found.st_rdev
    attributes = {each: os.getxattr(path, each, follow_symlinks=False) for each in _listed(path)}
    time = found.st_mtime_ns if times else None
    return (oct(found.st_mode), found.st_uid, found.st_gid, time, content, attributes, tuple(names))


def _listed(path: Path) -> Iterable[str]:
    return os.listxattr(path, follow_symlinks=False)
