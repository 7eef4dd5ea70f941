"""One blob into a repository, and on after whatever broke (distribution-spec, "Pushing blobs").

POST begins an upload, one PATCH streams all of it, PUT ends it. Where the connection breaks, GET tells how much came,
and another PATCH brings the rest. So every PATCH is meant as the last chunk, the one that no `OCI-Chunk-Min-Length`
concerns. Small blobs, and registries that take no PATCH, get the whole with the PUT. CNCF Distribution (2.8) loses an
upload whose connection broke, as its Location tells an offset that is no longer true: there it is begun anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlencode, urljoin

from client.registries.api import PASSING, Api, expect, refusal
from client.registries.retrying import Patience
from client.transfers.supply import Source
from client.wire.exchange import Response
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import CANONICAL, Verifier
from ocispec.errors import (
    BlobUploadUnknown,
    ContentTruncated,
    DigestMismatch,
    GrammarError,
    HostUnreachable,
    LayerhouseError,
    NameUnknown,
    RangeInvalid,
    ResponseInvalid,
    Unsupported,
    UploadBusy,
)
from ocispec.headers import ChunkRange, Scope
from ocispec.reference import RepositoryName
from storage.threads import finish

# What is smaller goes out in two requests instead of three; little is lost where it breaks.
SMALL = 1024 * 1024
# A try after which the registry has this much more was no failure: the next one starts counting anew.
PROGRESS = 64 * 1024
PROGRESS_EVERY = 0.1
CANCEL_WITHIN = 5.0
SETTLING = 10
# Below this a visit to a thread costs more than the hashing.
_LITTLE = 64 * 1024
_NO_PATCH = frozenset({405, 411, 415, 501})
_TRUNCATED = (HostUnreachable, ContentTruncated)


class How(StrEnum):
    """How a blob came to be in a repository."""

    UPLOADED = "uploaded"
    EXISTS = "exists"
    MOUNTED = "mounted"


class _Body:
    """The body of one request. Where access had to be renewed it would be sent again, and what it gave is gone."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:
            raise ContentTruncated("access ended while the blob was on its way")
        self._begun = True
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)


class Upload:
    """One blob on its way.

    Args:
        api: the endpoint, allowed to push.
        patience: how often it is tried without progress.
        blob: what is sent.
        source: gives its bytes; they are verified while they pass.
        told: hears, now and then, how many bytes were sent.
    """

    def __init__(
        self, api: Api, patience: Patience, blob: Descriptor, source: Source, told: Callable[[int], None]
    ) -> None:
        self._api = api
        self._patience = patience
        self._blob = blob
        self._source = source
        self._told = told
        self._verifier = Verifier(blob.digest)
        self._location: str | None = None
        self._whole = blob.size <= SMALL
        self._done = False
        # What the registry has, as it said last; whether it must be asked again; the most that it ever had.
        self._at = 0
        self._broke = False
        self._furthest = 0

    async def run(self, mounts: Sequence[RepositoryName] = ()) -> How:
        """Brings the blob there; cancelled or failed, the upload is given up (end-14) and the repository as it was.

        Args:
            mounts: repositories of the same registry that may have the blob.

        Raises:
            DigestMismatch: the source's bytes are not those of the digest; the upload was given up.
            ContentTruncated, HostUnreachable: it broke too often without progress.
            LayerhouseError: as the registry answers, or the source fails.
        """
        try:
            for each in mounts:
                if await self._mounted(each):
                    return How.MOUNTED
            while not self._done:
                await self._patience.run(self._api.endpoint.login, self._try)
        except BaseException:
            await self._give_up()
            raise
        return How.UPLOADED

    async def exists(self) -> bool:
        """Returns whether the repository has the blob (end-2)."""
        path = f"{self._api.endpoint.repository}/blobs/{self._blob.digest}"
        async with self._api.send("HEAD", path) as response:
            return response.status == 200

    async def _mounted(self, repository: RepositoryName) -> bool:
        """Asks for the blob of another repository (end-11); the registry may begin an upload instead."""
        await self._give_up()
        query = urlencode({"mount": str(self._blob.digest), "from": repository})
        scope = Scope("repository", repository, ("pull",))
        # A registry that does not let this user read there, or knows no mounts, still takes an upload.
        with suppress(LayerhouseError):
            async with self._api.send("POST", self._uploads(query), headers=_EMPTY, scopes=(scope,)) as response:
                if response.status == 202:
                    self._move(response)
                return response.status == 201
        return False

    async def _try(self) -> None:
        """Brings all that is missing; ends quietly where it broke after some of it came."""
        try:
            await self._once()
        except _TRUNCATED:
            self._broke = True
            if self._whole or self._location is None:
                raise
            await self._ask()
            if self._at < self._furthest + PROGRESS:
                raise
            self._furthest = self._at

    async def _once(self) -> None:
        if self._broke and self._location:
            await self._ask()
        if self._location is None:
            await self._begin()
        if self._done:
            return
        try:
            await (self._put_whole() if self._whole else self._patch())
        except (BlobUploadUnknown, RangeInvalid, UploadBusy) as error:
            if isinstance(error, BlobUploadUnknown):
                self._forget()
            raise ContentTruncated(f"the registry lost the upload: {error.message}") from error

    async def _begin(self) -> None:
        """Begins an upload (end-4a), unless the answer that was lost said that the last one was whole."""
        if self._broke and await self.exists():
            self._done = True
            return
        algorithm = self._blob.digest.algorithm
        query = "" if algorithm == CANONICAL else urlencode({"digest-algorithm": algorithm})
        async with self._api.send("POST", self._uploads(query), headers=_EMPTY) as response:
            await expect(response, 202, NameUnknown)
            self._move(response)
        self._at, self._broke = 0, False

    async def _ask(self) -> None:
        """Finds out how much the registry has; where it does not say, another upload is begun."""
        came = None if self._whole else await self._settled()
        if came is None:
            await self._give_up()
        else:
            self._at, self._broke = came, False

    async def _settled(self) -> int | None:
        """Asks until two answers agree: what was on its way when the connection broke may still be coming in."""
        came = await self._came()
        for _ in range(SETTLING):
            before = came
            await asyncio.sleep(self._patience.first)
            came = await self._came()
            if came == before:
                break
        return came

    async def _came(self) -> int | None:
        """Returns how many bytes the registry says it has (end-13); None where it does not, or cannot be right."""
        async with self._api.send("GET", self._location or "", again=False) as response:
            if response.status in PASSING:
                raise await refusal(response, BlobUploadUnknown)
            came = _taken(response) if response.status in (200, 202, 204) else None
            if came is None or came > self._verifier.size:
                return None
            self._move(response, self._location)
            return came

    async def _patch(self) -> None:
        """Streams what is missing (end-5), then ends the upload (end-6)."""
        size = self._blob.size
        if self._at < size:
            span = {"Content-Range": str(ChunkRange(self._at, size - 1))} if self._at else {}
            async with self._sent("PATCH", self._location or "", self._at, span) as response:
                if response.status in _NO_PATCH:
                    await self._turn()
                    return
                try:
                    await expect(response, 202, BlobUploadUnknown)
                except Unsupported:
                    await self._turn()
                    return
                self._move(response, self._location)
                if _taken(response) not in (None, size):
                    raise ContentTruncated(f"the registry kept {_taken(response)} of {size} bytes")
            self._at = size
        async with self._api.send("PUT", self._final(), headers=_EMPTY) as response:
            await expect(response, 201, BlobUploadUnknown)
        self._done = True

    async def _put_whole(self) -> None:
        """Sends all of it with the end of the upload (end-6)."""
        self._broke = True
        async with self._sent("PUT", self._final(), 0, {}) as response:
            await expect(response, 201, BlobUploadUnknown)
        self._done = True

    async def _turn(self) -> None:
        """From now on, sends the whole at once."""
        await self._give_up()
        self._whole = True

    @asynccontextmanager
    async def _sent(self, method: str, url: str, offset: int, headers: dict[str, str]) -> AsyncIterator[Response]:
        length = {"Content-Length": str(self._blob.size - offset), "Content-Type": mediatypes.OCTET_STREAM}
        async with (
            self._source.stream(self._blob, offset) as pieces,
            aclosing(self._checked(pieces, offset)) as body,
            self._api.send(method, url, headers={**length, **headers}, content=_Body(body)) as response,
        ):
            yield response

    async def _checked(self, pieces: AsyncIterator[bytes], offset: int) -> AsyncGenerator[bytes, None]:
        """Yields pieces, the last one once all of them are known to be what the digest names."""
        due = 0.0
        async for piece in pieces:
            unseen = piece[max(0, self._verifier.size - offset) :]
            offset += len(piece)
            if len(unseen) > _LITTLE:
                await finish(self._verifier.update, unseen)
            else:
                self._verifier.update(unseen)
            if offset >= self._blob.size:
                self._verify(offset)
            yield piece
            if time.monotonic() >= due:
                due = time.monotonic() + PROGRESS_EVERY
                self._told(offset)
        self._verify(offset)

    def _verify(self, size: int) -> None:
        if size != self._blob.size:
            raise DigestMismatch(f"expected {self._blob.size} bytes, what was read has {size}")
        if not self._verifier.verified():
            raise DigestMismatch(f"expected {self._blob.digest}, what was read hashes to {self._verifier.actual}")

    async def _give_up(self) -> None:
        """Tells the registry that nobody goes on with the upload; that it cannot be told changes nothing."""
        location, self._location = self._location, None
        if location:
            with suppress(LayerhouseError, TimeoutError):
                async with asyncio.timeout(CANCEL_WITHIN), self._api.send("DELETE", location):
                    pass
        self._forget()

    def _forget(self) -> None:
        self._location, self._at = None, 0

    def _move(self, response: Response, before: str | None = None) -> None:
        """Takes where the upload goes on, which each answer may tell anew."""
        told = response.headers.get("location")
        self._location = urljoin(response.url, told) if told else before
        if self._location is None:
            raise ResponseInvalid("the registry began an upload without a Location")

    def _uploads(self, query: str) -> str:
        return f"{self._api.endpoint.repository}/blobs/uploads/{'?' if query else ''}{query}"

    def _final(self) -> str:
        location = self._location or ""
        return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': str(self._blob.digest)})}"


_EMPTY = {"Content-Length": "0"}


def _taken(response: Response) -> int | None:
    """How many bytes an upload has; None where it does not say. `0-0` is none, or one: it is all the same."""
    try:
        span = ChunkRange.parse(response.headers.get("range", ""))
    except GrammarError:
        return None
    return span.last + 1 if span.first == 0 and span.last else None
