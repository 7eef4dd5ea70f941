"""A repository at a registry (distribution-spec, "Pull" and "Push")."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from urllib.parse import urlencode, urljoin

from client.auth import Access
from client.exchange import Answer, Request, Response, Send, read
from ocispec import mediatypes, strictjson
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    ContentTruncated,
    DigestInvalid,
    DigestMismatch,
    HostUnreachable,
    LayerhouseError,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    ResponseInvalid,
    UnknownError,
    from_envelope,
)
from ocispec.headers import Scope
from ocispec.manifest import Manifest
from ocispec.reference import DOCKER_HUB, Reference, Tag

MAX_MANIFEST = 4 * 1024 * 1024
_MAX_ENVELOPE = 64 * 1024
_HUB_REGISTRY = "registry-1.docker.io"


class Remote:
    """The repository that a reference names. Every error tells host, image, digest and cause in one line.

    Args:
        reference: the image.
        send: sends a request, see `client.exchange.Transport`.
        access: what registries granted so far.
        actions: what is to be done there, as a token's scope says it.
        plain_http: speak http to any host, not to this machine alone.
    """

    def __init__(
        self,
        reference: Reference,
        send: Send,
        access: Access,
        *,
        actions: tuple[str, ...] = ("pull",),
        plain_http: bool = False,
    ) -> None:
        self.reference = reference
        self.host = _HUB_REGISTRY if reference.host == DOCKER_HUB else reference.host
        scheme = "http" if plain_http or _is_local(reference.host) else "https"
        self._origin = f"{scheme}://{self.host}/"
        self._base = f"{self._origin}v2/{reference.repository}"
        self._open = send
        self._access = access
        self._scope = Scope("repository", reference.repository, actions)

    async def head(self, target: Tag | Digest) -> Digest | None:
        """Returns the digest that the registry says a manifest has; None where it does not say (end-3).

        Raises:
            HostUnreachable, Unauthorized: see the class.
        """
        with within(self.place(target)):
            async with self._send(self._manifest_request("HEAD", target)) as response:
                return _stated_digest(response) if response.status == 200 else None

    async def manifest(self, target: Tag | Digest) -> tuple[Digest, Manifest]:
        """Fetches a manifest or index and verifies it against its digest (end-3).

        Raises:
            ManifestUnknown, Unauthorized, …: as the registry answers.
            ManifestInvalid: it cannot be read, or is of schema 1.
            DigestMismatch: its bytes are not those the digest names.
            ContentTruncated, HostUnreachable, ResponseInvalid: on the way.
        """
        with within(self.place(target)):
            async with self._send(self._manifest_request("GET", target)) as response:
                await _expect(response, 200, ManifestUnknown)
                stated = target if isinstance(target, Digest) else _stated_digest(response)
                raw = await read(_counted(response), MAX_MANIFEST)
            if raw is None:
                raise ResponseInvalid(f"the manifest is longer than {MAX_MANIFEST} bytes")
            digest = stated or Digest.of(raw)
            if not digest.matches(raw):
                raise DigestMismatch(f"expected {digest}, its content hashes to {Digest.of(raw, digest.algorithm)}")
            return digest, Manifest.parse(raw, _manifest_type(response))

    @asynccontextmanager
    async def blob(self, digest: Digest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opens a blob, to be read piece by piece and verified by the reader (end-2).

        Raises:
            BlobUnknown, Unauthorized, …: as the registry answers.
            ContentTruncated: the body ended early; raised while it is read.
            HostUnreachable, ResponseInvalid: on the way.
        """
        with within(self.place(digest)):
            async with self._send(Request("GET", f"{self._base}/blobs/{digest}")) as response:
                await _expect(response, 200, BlobUnknown)
                async with aclosing(_counted(response)) as pieces:
                    yield pieces

    async def small_blob(self, wanted: Descriptor) -> bytes:
        """Returns a blob of at most 4 MiB, verified; see `blob` for errors, and DigestMismatch."""
        with within(self.place(wanted.digest)):
            async with self.blob(wanted.digest) as pieces:
                data = await read(pieces, MAX_MANIFEST)
            if data is None or not wanted.digest.matches(data):
                raise DigestMismatch(f"its content does not hash to {wanted.digest}")
            return data

    async def upload(self, wanted: Descriptor, content: Callable[[], AsyncIterator[bytes]]) -> bool:
        """Sends a blob in one piece, unless the repository has it (end-2, end-4a, end-6); returns whether it did.

        Raises:
            DigestInvalid, Denied, …: as the registry answers.
            HostUnreachable, ResponseInvalid: on the way.
        """
        with within(self.place(wanted.digest)):
            async with self._send(Request("HEAD", f"{self._base}/blobs/{wanted.digest}")) as response:
                if response.status == 200:
                    return False
            async with self._send(Request("POST", f"{self._base}/blobs/uploads/")) as response:
                await _expect(response, 202, NameUnknown)
                location = urljoin(response.url, response.headers.get("location", ""))
            url = f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': str(wanted.digest)})}"
            headers = {"Content-Length": str(wanted.size), "Content-Type": mediatypes.OCTET_STREAM}
            async with self._send(Request("PUT", url, headers, content())) as response:
                await _expect(response, 201, BlobUploadUnknown)
            return True

    async def put(self, target: Tag | Digest, manifest: Manifest) -> None:
        """Stores a manifest or index under a tag or its digest (end-7); errors as `upload`."""
        request = Request(
            "PUT", f"{self._base}/manifests/{target}", {"Content-Type": manifest.media_type}, manifest.raw
        )
        with within(self.place(target)):
            async with self._send(request) as response:
                await _expect(response, 201, NameUnknown)

    def _manifest_request(self, method: str, target: Tag | Digest) -> Request:
        return Request(method, f"{self._base}/manifests/{target}", {"Accept": mediatypes.ACCEPT})

    def place(self, target: Tag | Digest) -> str:
        """How messages call a manifest or blob of this image."""
        known = (self.reference.tag, self.reference.digest)
        name = str(self.reference) if target in known else f"{self.reference}: {target}"
        return name if self.host == self.reference.host else f"{name} at {self.host}"

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        # An upload may lead to another host, which is no business of the token's.
        here = request.url.startswith(self._origin)
        granted = self._access.granted(self.host, self._scope) if here else None
        async with self._open(_authorized(request, granted)) as response:
            challenge = response.headers.get("www-authenticate")
            if response.status != 401 or not challenge or not here:
                yield response
                return
        granted = await self._access.renew(self.host, self._scope, granted, challenge, self._exchange)
        async with self._open(_authorized(request, granted)) as response:
            yield response

    async def _exchange(self, request: Request) -> Answer:
        async with self._open(request) as response:
            return Answer(response.status, response.headers, await read(response.pieces(), _MAX_ENVELOPE) or b"")


@contextmanager
def within(place: str) -> Iterator[None]:
    """Puts `place` in front of the message of every error, unless it stands there already."""
    try:
        yield
    except LayerhouseError as error:
        if error.message.startswith(place):
            raise
        message = f"{place}: {error.message}"
        raise type(error)(message, detail=error.detail, headers=error.headers) from error


async def _counted(response: Response) -> AsyncGenerator[bytes, None]:
    offset = 0
    try:
        async for piece in response.pieces():
            offset += len(piece)
            yield piece
    except HostUnreachable as error:
        size = response.headers.get("content-length", "unknown")
        raise ContentTruncated(f"ended after {offset} of {size} bytes: {error.message}") from error


async def _expect(response: Response, status: int, missing: type[RegistryError]) -> None:
    if response.status == status:
        return
    try:
        body = strictjson.loads(await read(response.pieces(), _MAX_ENVELOPE) or b"")
    except (strictjson.AmbiguousJSON, HostUnreachable):
        body = None
    error = from_envelope(body, response.status)
    kind = missing if isinstance(error, UnknownError) and response.status == 404 else type(error)
    said = kind.summary if error.message == type(error).summary else _one_line(error.message)
    raise kind(f"{said} (status {response.status})", detail=error.detail, headers=response.headers)


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:500])


def _stated_digest(response: Response) -> Digest | None:
    stated = response.headers.get("docker-content-digest")
    try:
        return Digest.parse(stated) if stated else None
    except DigestInvalid as error:
        raise ResponseInvalid(f"Docker-Content-Digest: {error.message}") from error


def _manifest_type(response: Response) -> str | None:
    # Servers that keep manifests as plain files say text/plain or the like, and then the manifest itself decides.
    given = mediatypes.essence(response.headers.get("content-type", ""))
    return given if given in mediatypes.MANIFESTS | mediatypes.SCHEMA_1 else None


def _authorized(request: Request, granted: str | None) -> Request:
    return replace(request, headers={**request.headers, "Authorization": granted}) if granted else request


def _is_local(host: str) -> bool:
    return re.fullmatch(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", host) is not None
