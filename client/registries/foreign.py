"""Foreign layers, which lie outside the registry ("non-distributable", image-spec layer.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from client.registries.api import expect, origin
from client.registries.remote import Body, body_of
from client.wire.exchange import Request, Send
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, ResponseInvalid
from ocispec.headers import ByteRange


class ForeignSource:
    """`client.transfers.transfer.Source` of one address, asked without any access.

    Raises:
        ResponseInvalid: the address is neither http nor https.
    """

    def __init__(self, url: str, send: Send) -> None:
        scheme, host = origin(url)
        if scheme not in ("http", "https") or not host:
            raise ResponseInvalid(f"foreign layer: {url[:200]!r} is neither http nor https")
        self._url = url
        self._send = send
        self.host = host

    @asynccontextmanager
    async def part(self, digest: Digest, span: ByteRange | None = None, *, mirrors: bool = True) -> AsyncIterator[Body]:
        del digest, mirrors
        async with self._send(Request("GET", self._url, {"Range": str(span)} if span else {})) as response:
            if not (span and response.status == 206):
                await expect(response, 200, BlobUnknown)
            yield body_of(response, span)
