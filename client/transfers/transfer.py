"""One blob over the network: in parts side by side where the host serves ranges, else in one stream.

Every part has to come as 206 with exactly the range that was asked for (RFC 9110, section 14); anything else means that
the host cannot do it, and the blob is fetched in one stream. What breaks goes on at the byte where it broke.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from client.registries.remote import Body
from client.registries.retrying import Patience
from client.tasks import together
from client.transfers.slots import Slots
from ocispec.digest import Digest
from ocispec.errors import ContentTruncated, DigestMismatch, HostUnreachable, RangeInvalid, ResponseInvalid
from ocispec.headers import ByteRange
from storage.partials import Part, Partial
from storage.threads import finish

_MIB = 1024 * 1024
# Parts are large enough that asking for one costs nothing beside it (AWS advises 8 to 16 MiB).
SMALLEST_PART, LARGEST_PART = 8 * _MIB, 16 * _MIB
# A size that somebody made up must not fill the memory with parts.
_MOST_PARTS = 10_000
# A try that brought this much was no failure: the next one starts counting anew.
_PROGRESS = 64 * 1024


class Source(Protocol):
    """Where a blob comes from."""

    @property
    def host(self) -> str:
        """Which host's slots it takes."""

    def part(
        self, digest: Digest, span: ByteRange | None = None, *, mirrors: bool = True
    ) -> AbstractAsyncContextManager[Body]:
        """See `client.registries.remote.Remote.part`."""


Pick: TypeAlias = Callable[[Sequence[tuple[int, int]]], int]
"""Given offset and length of the parts that nobody fetches yet, in their order: the index of the next one."""


class NoRangesError(Exception):
    """The host answered a range with something else."""


def part_size(size: int, streams: int) -> int:
    """Returns how many bytes a part has: so many that each of `streams` gets some of them, within the bounds."""
    share = -(-size // (4 * max(1, streams)))
    return max(min(LARGEST_PART, max(SMALLEST_PART, -(-share // _MIB) * _MIB)), size // _MOST_PARTS)


class Transfer:
    """Brings what a partial blob lacks; cancelled or failed, what came stays in it.

    Args:
        source: where it comes from.
        digest: the blob.
        partial: where it goes.
        slots: bound what runs at once.
        patience: how often a part is tried without progress.
        mirrors: whether mirrors are asked.
        pick: which part comes next; the first one unless told.
    """

    def __init__(
        self,
        source: Source,
        digest: Digest,
        partial: Partial,
        slots: Slots,
        patience: Patience,
        *,
        mirrors: bool,
        pick: Pick = lambda _todo: 0,
    ) -> None:
        self._source = source
        self._digest = digest
        self._partial = partial
        self._slots = slots
        self._patience = patience
        self._mirrors = mirrors
        self._pick = pick
        self._todo: list[tuple[int, int]] = []
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Fetches all that is missing.

        Raises:
            ContentTruncated, HostUnreachable: it broke too often without progress.
            DigestMismatch: more bytes came than the blob has.
            StorageError: the bytes cannot be written.
            LayerhouseError: see `Source.part`.
        """
        size = self._partial.size
        with self._slots.shared() as places:
            self._todo.extend(self._partial.missing(part_size(size, places)))
            try:
                if self._todo == [(0, size)]:
                    await self._stream()
                else:
                    workers = min(self._slots.per_host, len(self._todo))
                    await together(self._work(leads=number == 0) for number in range(workers))
            except NoRangesError:
                await finish(self._partial.clear)
                await self._stream()

    async def _work(self, *, leads: bool) -> None:
        # The first answer tells whether the host serves ranges; before it nobody else asks.
        if not leads:
            await self._answered.wait()
        while self._todo:
            offset, length = self._todo.pop(self._pick(self._todo))
            await self._fetch(_Span(self._partial.part(offset, offset + length)))

    async def _stream(self) -> None:
        await self._fetch(_Span(self._partial.part(0, self._partial.size), whole=True))

    async def _fetch(self, span: _Span) -> None:
        """Brings a span up to its end, in as many tries as make progress."""
        part = span.part
        furthest = part.at

        async def rest() -> None:
            nonlocal furthest
            try:
                await self._once(span)
            except ContentTruncated:
                # What was fetched before, by a host that sends it all again, is no progress.
                if part.at < furthest + _PROGRESS:
                    raise
            furthest = part.at

        try:
            while part.at < part.end:
                await self._patience.run(self._source.host, rest)
        finally:
            await finish(part.close)

    async def _once(self, span: _Span) -> None:
        wanted = None if span.whole and span.part.at == 0 else ByteRange(span.part.at, span.part.end - 1)
        async with self._slots.one(self._source.host):
            # A wait may have begun while this one stood in the queue.
            await self._patience.kept(self._source.host)
            try:
                async with self._source.part(self._digest, wanted, mirrors=self._mirrors) as body:
                    await self._settle(span, body)
                    await self._poured(span, body)
            except RangeInvalid as error:
                raise self._cut(span, "the host has no more") from error
            except (ResponseInvalid, DigestMismatch) as error:
                if wanted is None:
                    raise
                if not span.whole:
                    raise NoRangesError from error
                await finish(span.part.restart)
                raise self._cut(span, error.message) from error

    async def _poured(self, span: _Span, body: Body) -> None:
        try:
            await body.response.pour(span.part.take)
        except HostUnreachable as error:
            raise self._cut(span, error.message) from error
        if span.part.at < span.part.end:
            raise self._cut(span, "the host sent no more")

    def _cut(self, span: _Span, cause: str) -> ContentTruncated:
        return ContentTruncated(f"ended after {span.part.at} of {self._partial.size} bytes: {cause}")

    async def _settle(self, span: _Span, body: Body) -> None:
        """Decides what an answer is good for."""
        if not body.partial and not span.whole:
            if self._answered.is_set():
                raise NoRangesError
            # The host sends all of it: take that, and leave nothing for the others.
            self._todo.clear()
            span.whole = True
        if not body.partial:
            await finish(span.part.restart)
        self._answered.set()


@dataclass(slots=True)
class _Span:
    """What one worker is to bring: exactly that part or, where it is the whole blob, whatever the host gives of it."""

    part: Part
    whole: bool = False
