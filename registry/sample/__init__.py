"""The sample that `registry demo` shows: `diamol/ch03-web-ping`, for amd64 and arm64.

It is made here, byte for byte the same on every machine, in the way docker build makes one from a Dockerfile. Its base
only stands in for that of node: it has the shape and not the program, so that the sample stays small.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.platform import Platform

NAME = "diamol/ch03-web-ping"
PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
_CREATED = "2026-01-01T00:00:00Z"
_ENV = ("PATH=/usr/local/bin:/usr/bin:/bin", "TARGET=blog.sixeyed.com", "METHOD=HEAD", "INTERVAL=3000")
_CMD = ("node", "/web-ping/app.js")
_RELEASE = b'ID=sample\nPRETTY_NAME="a base that stands in for that of node"\n'
_RUNTIME_SIZE = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """A multi-platform image.

    Attributes:
        index: descriptor of what a tag names.
        contents: all manifests and blobs, by digest.
    """

    index: Descriptor
    contents: Mapping[Digest, bytes]


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction of the Dockerfile, and the files of the layer it made, if any; None for a folder."""

    created_by: str
    files: Mapping[str, bytes | None] | None = None


def build() -> Sample:
    """Makes the image; takes a few milliseconds."""
    contents: dict[Digest, bytes] = {}
    children = [_image(platform, contents) for platform in PLATFORMS]
    members = {"mediaType": mediatypes.OCI_INDEX, "manifests": [each.to_json() for each in children]}
    return Sample(_put_json(contents, mediatypes.OCI_INDEX, {"schemaVersion": 2, **members}), contents)


def _image(platform: Platform, contents: dict[Digest, bytes]) -> Descriptor:
    steps = _dockerfile(platform)
    layers = [_put(contents, mediatypes.OCI_LAYER, _tar(step.files)) for step in steps if step.files is not None]
    config = _put_json(contents, mediatypes.OCI_CONFIG, _config(platform, steps, layers))
    members = {"config": config.to_json(), "layers": [each.to_json() for each in layers]}
    manifest = {"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, **members}
    image = _put_json(contents, mediatypes.OCI_MANIFEST, manifest)
    return Descriptor(image.media_type, image.digest, image.size, platform)


def _dockerfile(platform: Platform) -> list[_Step]:
    runtime = hashlib.shake_256(str(platform).encode()).digest(_RUNTIME_SIZE)
    app = Path(__file__).with_name("app.js").read_bytes()
    return [
        _Step("ADD base /", {"etc": None, "etc/os-release": _RELEASE, "tmp": None}),
        _Step("COPY runtime /usr/local/lib/", {"usr": None, "usr/local": None, "usr/local/lib/runtime": runtime}),
        *(_Step(f"ENV {each}") for each in _ENV),
        _Step("WORKDIR /web-ping", {"web-ping": None}),
        _Step("COPY app.js .", {"web-ping/app.js": app}),
        _Step(f"CMD {json.dumps(_CMD)}"),
    ]


def _config(platform: Platform, steps: list[_Step], layers: list[Descriptor]) -> dict[str, Any]:
    return {
        "created": _CREATED,
        "os": platform.os,
        "architecture": platform.architecture,
        "config": {"Env": list(_ENV), "Cmd": list(_CMD), "WorkingDir": "/web-ping"},
        # A layer that is not compressed has the same digest packed and unpacked, whichever zlib a machine has.
        "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in layers]},
        "history": [
            {"created": _CREATED, "created_by": step.created_by, "empty_layer": step.files is None} for step in steps
        ],
    }


def _tar(files: Mapping[str, bytes | None]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            entry.mode = 0o755 if data is None else 0o644
            entry.size = len(data or b"")
            tar.addfile(entry, io.BytesIO(data or b""))
    return archive.getvalue()


def _put_json(contents: dict[Digest, bytes], media_type: str, members: Mapping[str, Any]) -> Descriptor:
    return _put(contents, media_type, json.dumps(members, indent=2).encode())


def _put(contents: dict[Digest, bytes], media_type: str, data: bytes) -> Descriptor:
    digest = Digest.of(data)
    contents[digest] = data
    return Descriptor(media_type, digest, len(data))
