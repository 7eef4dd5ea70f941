"""A repository, as the registry's handlers see it: hosted here, or mirrored, behind the same protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from ocispec.descriptor import Descriptor
from ocispec.digest import CANONICAL, Digest
from ocispec.headers import ChunkRange
from ocispec.reference import RepositoryName, Tag
from storage.engine import Content

MAX_MANIFEST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's bytes with what its answer's header says of them."""

    digest: Digest
    media_type: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries in their order, and whether more follow."""

    entries: tuple[str, ...]
    more: bool

    @classmethod
    def of(cls, names: Sequence[str], limit: int) -> Page:
        return cls(tuple(names[:limit]), len(names) > limit)


@dataclass(frozen=True, slots=True)
class TagLink:
    """What a tag points at, and since when: seconds since the epoch."""

    digest: Digest
    pushed: float


class Blobs(Protocol):
    async def size(self, digest: Digest) -> int:
        """Length in bytes; raises BlobUnknown."""

    async def open(self, digest: Digest) -> Content:
        """Opens a blob, which the caller closes; raises BlobUnknown."""

    async def mount(
        self, digest: Digest, source: RepositoryName | None, readable: Callable[[RepositoryName], bool]
    ) -> bool:
        """Takes a blob over from `source`, or from wherever it is; False where it is not to be had there.

        Args:
            digest: of the blob.
            source: None looks into every repository.
            readable: whether the caller may read a repository; no other one counts as a source (CVE-2024-39897).
        """

    async def delete(self, digest: Digest) -> None:
        """Forgets the blob in this repository; raises BlobUnknown."""


class Manifests(Protocol):
    async def get(self, reference: Tag | Digest) -> StoredManifest:
        """Raises ManifestUnknown."""

    async def put(
        self, reference: Tag | Digest, raw: bytes, media_type: str | None, tags: Sequence[Tag] = ()
    ) -> tuple[StoredManifest, Digest | None]:
        """Stores a manifest under its digest, and under its tags; returns what is stored and its subject's digest.

        Raises:
            ManifestInvalid, ManifestTooLarge, DigestInvalid: refused, nothing is kept.
            ManifestBlobUnknown: its `detail` lists each digest that is missing here.
        """

    async def delete(self, digest: Digest) -> tuple[Tag, ...]:
        """Forgets the manifest and each tag that points at it, which it returns; raises ManifestUnknown."""


class Tags(Protocol):
    async def page(self, after: str, limit: int) -> Page:
        """Tags behind `after` in lexical order; raises NameUnknown."""

    async def link(self, tag: Tag) -> TagLink:
        """Raises ManifestUnknown."""

    async def delete(self, tag: Tag) -> None:
        """Raises ManifestUnknown."""


class Referrers(Protocol):
    async def of(self, subject: Digest) -> tuple[Descriptor, ...]:
        """Descriptors of the manifests whose subject this is, ordered by digest; none is no error."""


class Uploads(Protocol):
    """Uploads in progress. Their state lies in storage: any worker process may take the next request."""

    async def begin(self, algorithm: str = CANONICAL) -> UUID: ...

    async def size(self, upload_id: UUID) -> int:
        """How many bytes have arrived; raises BlobUploadUnknown."""

    async def append(self, upload_id: UUID, chunks: AsyncIterator[bytes], span: ChunkRange | None = None) -> int:
        """Adds a chunk and returns the size reached. What arrived before a broken connection is kept.

        Args:
            upload_id: from `begin`.
            chunks: the body as it arrives.
            span: where the client says the chunk lies.

        Raises:
            BlobUploadUnknown, UploadBusy: nothing was added.
            RangeInvalid: the chunk does not begin where the upload ends; `headers` tells the range there is.
            SizeInvalid: the chunk is not as long as `span` says; it was taken back.
        """

    async def commit(
        self, upload_id: UUID, digest: Digest, chunks: AsyncIterator[bytes], span: ChunkRange | None = None
    ) -> int:
        """Adds the last chunk and turns the upload into a blob of this repository, durably; returns its size in bytes.

        Raises: what `append` does, and
            DigestInvalid: the content has another digest; the upload is gone.
        """

    async def cancel(self, upload_id: UUID) -> None:
        """Removes the upload; raises BlobUploadUnknown."""


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository: five small stores that know its name."""

    name: RepositoryName
    blobs: Blobs
    manifests: Manifests
    tags: Tags
    referrers: Referrers
    uploads: Uploads
