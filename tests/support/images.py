"""Push and pull over plain sockets with the standard library, so that no code under test judges itself."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import random
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
MIB = 1 << 20


class WrongBytesError(Exception):
    """A registry answered 200 with bytes that are not the ones asked for."""


class RefusedError(Exception):
    """A registry answered with a status that was not expected."""

    def __init__(self, status: int, what: str, body: bytes) -> None:
        super().__init__(f"{status} {what}: {body[:2000]!r}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Wire:
    """One HTTP connection to a registry; `host` is "127.0.0.1:PORT"."""

    def __init__(self, host: str, *, timeout: float = 60) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=timeout, blocksize=MIB)

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **headers: str) -> Answer:
        """Send one request and read the whole answer; a status other than `expect` raises RefusedError."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, sent)
        response = self._connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        if expect is not None and answer.status != expect:
            raise RefusedError(answer.status, f"{method} {path}, expected {expect}", answer.body)
        return answer

    def push_blob(self, repo: str, data: bytes) -> str:
        """end-4a and end-6; returns the digest."""
        digest = sha256(data)
        self.ask("PUT", _with(self._open_upload(repo), f"digest={digest}"), data, expect=201)
        return digest

    def push_stream(self, repo: str, chunks: Iterable[bytes | bytearray], size: int) -> str:
        """POST, one PATCH of `size` bytes, PUT, as docker does; hashed while it is sent. Returns the digest."""
        hasher = hashlib.sha256()
        location = self._open_upload(repo)
        answer = self.ask("PATCH", location, _hashed(chunks, hasher), expect=202, Content_Length=str(size))
        digest = f"sha256:{hasher.hexdigest()}"
        self.ask("PUT", _with(_local(answer.headers["location"]), f"digest={digest}"), expect=201, Content_Length="0")
        return digest

    def push_manifest(self, repo: str, reference: str, manifest: Mapping[str, Any]) -> str:
        """end-7; returns the digest of the bytes sent."""
        body = manifest_bytes(manifest)
        path = f"/v2/{repo}/manifests/{reference}"
        self.ask("PUT", path, body, expect=201, Content_Type=str(manifest["mediaType"]))
        return sha256(body)

    def manifest(self, repo: str, reference: str) -> Answer:
        """end-3, its bytes checked against Docker-Content-Digest and, where `reference` is a digest, against that."""
        answer = self.ask("GET", f"/v2/{repo}/manifests/{reference}", expect=200, Accept=ACCEPT)
        digest = sha256(answer.body)
        wanted = reference if ":" in reference else digest
        if not digest == wanted == answer.headers["docker-content-digest"]:
            raise WrongBytesError(f"{repo}:{reference} is {digest}, header {answer.headers['docker-content-digest']}")
        return answer

    def blob(self, repo: str, digest: str) -> int:
        """end-2, hashed while it is read and not kept; returns the number of bytes."""
        self._connection.request("GET", f"/v2/{repo}/blobs/{digest}")
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise RefusedError(response.status, f"GET {repo}@{digest}", response.read())
        size = int(response.headers["content-length"])
        hasher, buffer, read = hashlib.sha256(), memoryview(bytearray(min(MIB, size + 1))), 0
        while count := response.readinto(buffer):
            hasher.update(buffer[:count])
            read += count
        if read != size:
            raise http.client.IncompleteRead(b"", size - read)
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise WrongBytesError(f"{repo}@{digest}: {read} bytes that are sha256:{hasher.hexdigest()}")
        return read

    def _open_upload(self, repo: str) -> str:
        answer = self.ask("POST", f"/v2/{repo}/blobs/uploads/", expect=202, Content_Length="0")
        return _local(answer.headers["location"])


def push_image(host: str, repo: str, tag: str, layers: Iterable[bytes], *, architecture: str = "amd64") -> str:
    """Push an OCI image of `layers` (see tar_layer; opaque bytes do where nobody unpacks) and return its digest."""
    with Wire(host) as wire:
        return push_image_on(wire, repo, tag, list(layers), architecture=architecture)


def push_image_on(wire: Wire, repo: str, tag: str, layers: list[bytes], *, architecture: str = "amd64") -> str:
    """As push_image, on a connection that is open."""
    return wire.push_manifest(repo, tag, push_parts(wire, repo, layers, architecture=architecture))


def push_parts(wire: Wire, repo: str, layers: list[bytes], *, architecture: str = "amd64") -> dict[str, Any]:
    """Push the layers and the config of an image, and return the manifest that is still to be pushed."""
    described = [{"mediaType": LAYER, "digest": wire.push_blob(repo, layer), "size": len(layer)} for layer in layers]
    diff_ids = [sha256(gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer) for layer in layers]
    config = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    body = json.dumps(config).encode()
    descriptor = {"mediaType": CONFIG, "digest": wire.push_blob(repo, body), "size": len(body)}
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": described}


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest).encode()


def push_index(host: str, repo: str, tag: str, platforms: Mapping[str, str], *, media_type: str = INDEX) -> str:
    """Push an index of manifests that the repository has, given as architecture → digest, and return its digest."""
    entries = []
    with Wire(host) as wire:
        for architecture, digest in platforms.items():
            child = wire.manifest(repo, digest)
            entry = {"mediaType": child.headers["content-type"], "digest": digest, "size": len(child.body)}
            entries.append(entry | {"platform": {"architecture": architecture, "os": "linux"}})
        return wire.push_manifest(repo, tag, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries})


def tar_layer(name: str, data: bytes) -> bytes:
    """A layer that clients can unpack: a gzipped tar of one file, the same bytes for the same arguments."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(archive.getvalue(), mtime=0)


def pull_image(host: str, repo: str, reference: str) -> dict[str, int]:
    """Fetch a manifest or index with all it names, check every digest, and return digest → size of each part."""
    with Wire(host) as wire:
        return pull_image_on(wire, repo, reference)


def pull_image_on(wire: Wire, repo: str, reference: str) -> dict[str, int]:
    """As pull_image, on a connection that is open; the first key is the digest that `reference` names."""
    answer = wire.manifest(repo, reference)
    parts = {answer.headers["docker-content-digest"]: len(answer.body)}
    document = json.loads(answer.body)
    for child in document.get("manifests", []):
        parts |= pull_image_on(wire, repo, child["digest"])
    for part in [document["config"], *document["layers"]] if "layers" in document else []:
        if part["digest"] not in parts:
            parts[part["digest"]] = wire.blob(repo, part["digest"])
        if parts[part["digest"]] != part["size"]:
            raise WrongBytesError(f"{repo}@{part['digest']}: {parts[part['digest']]} bytes, not {part['size']}")
    return parts


def stream(seed: int, size: int, block: int = MIB) -> Iterator[bytearray]:
    """`size` bytes that depend on `seed` and nowhere repeat, cheap to make: a random block with a counter in it.

    Each piece is the same buffer, filled anew: use it before taking the next.
    """
    buffer = bytearray(random.Random(seed).randbytes(block))
    for start in range(0, size, block):
        buffer[:8] = start.to_bytes(8, "big")
        yield buffer if size - start >= block else buffer[: size - start]


def _hashed(chunks: Iterable[bytes | bytearray], hasher: Any) -> Iterator[bytes | bytearray]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk


def _local(location: str) -> str:
    """The path and query of a Location, which may be relative or absolute (RFC 9110 §10.2.2)."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _with(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}"
