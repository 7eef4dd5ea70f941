"""One blob over the network into a folder, and every Content-Range that is not the one asked for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.registries.api import expect
from client.registries.remote import Body, body_of
from client.registries.retrying import Patience
from client.transfers.slots import Slots
from client.transfers.transfer import Transfer
from client.wire.exchange import Request
from client.wire.transport import HttpTransport
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown
from ocispec.headers import ByteRange
from storage.partials import Partial, Partials
from tests.client.faulty import FaultyRegistry, Sent

MIB = 1024 * 1024
DATA = random.Random(3).randbytes(4 * MIB + 4321)
DIGEST = Digest.of(DATA)
PATH = f"/v2/a/b/blobs/{DIGEST}"


@dataclass
class Address:
    """A source without login, mirrors or errors of its own."""

    host: str
    transport: HttpTransport
    mirrors: list[bool] = field(default_factory=list)

    @asynccontextmanager
    async def part(self, digest: Digest, span: ByteRange | None = None, *, mirrors: bool = True) -> AsyncIterator[Body]:
        self.mirrors.append(mirrors)
        headers = {"Range": str(span)} if span else {}
        async with self.transport.send(Request("GET", f"http://{self.host}{PATH}", headers)) as response:
            if not (span and response.status == 206):
                await expect(response, 200, BlobUnknown)
            yield body_of(response, span)


@dataclass
class Bench:
    """Runs transfers of one blob into one folder."""

    registry: FaultyRegistry
    root: Path
    slots: Slots = field(default_factory=lambda: Slots(6, 6))
    sources: list[Address] = field(default_factory=list)

    async def run(self, use: Callable[[Partial], None] = Partial.verify) -> None:
        opened = HttpTransport(8)
        source = Address(self.registry.host, opened)
        self.sources.append(source)
        try:
            async with Partials(self.root).opened(DIGEST, len(DATA)) as partial:
                patience = Patience(first=0.001)
                await Transfer(source, DIGEST, partial, self.slots, patience, mirrors=True).run()
                use(partial)
                assert (self.root / ".partial/sha256" / DIGEST.hex / "data").read_bytes() == DATA
        finally:
            await opened.aclose()

    @property
    def once(self) -> bool:
        return self.registry.log.once(str(DIGEST), len(DATA))

    @property
    def ranges(self) -> list[str | None]:
        return [each.headers.get("range") for each in self.registry.seen]


WRONG = {
    "absent": None,
    "no grammar": "bytes x",
    "another unit": "items 0-1/2",
    "shifted": "+1",
    "shorter": "-1",
    "unsatisfied": f"bytes */{len(DATA)}",
    "contradiction": "bytes 9-3/20",
    "another size than its body": "length",
}


def wrongly(kind: str, sent: Sent) -> Sent:
    """A 206 whose Content-Range is not the one asked for."""
    first, last = sent.first, sent.first + len(sent.body) - 1
    headers = dict(sent.headers)
    if kind == "absent":
        del headers["Content-Range"]
    elif kind == "shifted":
        headers["Content-Range"] = f"bytes {first + 1}-{last + 1}/{len(DATA) * 2}"
    elif kind == "shorter":
        headers["Content-Range"] = f"bytes {first}-{last - 1}/{len(DATA)}"
    elif kind == "another size than its body":
        return replace(sent, headers={**headers, "Content-Length": str(len(sent.body) // 2)}, body=sent.body[::2])
    else:
        headers["Content-Range"] = str(WRONG[kind])
    return replace(sent, headers=headers)
