"""Archives into a registry's storage: every byte verified, the names last."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from client.archive import sources
from client.archive.content import ArchiveContent, naming
from client.archive.flow import pieces_of
from client.tasks import side_by_side
from client.transfers.content import Node
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import (
    ArchiveInvalid,
    BlobUnknown,
    BlobUploadUnknown,
    DigestInvalid,
    DigestMismatch,
    ManifestInvalid,
    ManifestUnknown,
)
from ocispec.mediatypes import is_foreign
from ocispec.reference import Reference, RepositoryName
from registry.archives import telling
from registry.archives.naming import Name
from registry.archives.nodes import blobs_of, nodes_of
from registry.archives.telling import Told
from storage.ingest import storage_errors
from storage.repository import Repository, Uploads
from storage.store import Store
from storage.threads import ended, finish

AT_ONCE = 4
STANDARD_INPUT = Path("-")


async def import_archive(store: Store, source: Path, names: Sequence[Name], told: Told) -> list[Name]:
    """Puts the images of an archive into a store: all of them, or no name at all.

    Of an index comes what the archive has of it; what refers to an image of the archive comes with it. Blobs that a
    repository has are not read again. Cancelled at any point, it leaves blobs and manifests that are whole, which no
    name points at.

    Args:
        store: where they go.
        source: an OCI layout's folder; a file, plain, gzip or zstd, that is an oci-archive or a docker-archive; `-` is
            such a file from standard input.
        names: for the one image in the archive, in place of the names that it has there.
        told: hears of every image and blob.

    Returns:
        The names, in the order of the archive.

    Raises:
        ArchiveInvalid: no archive, one of its parts is missing or not what its digest names, or an image has no name.
        DigestMismatch: a layer of a docker-archive is not the one its config tells.
        RegistryError: the registry's rules do not take a manifest.
        StorageError: the archive cannot be read, or the storage not be written.
    """
    async with _opened(source) as found:
        goals = _named(await _tops(found), names)
        arriving = _Arriving(store, found.content, told)
        for top, called in goals:
            firsts: dict[RepositoryName, Name] = {}
            for each in called:
                firsts.setdefault(each.repository, each)
            for each in firsts.values():
                await arriving.bring(top, each)
        pairs = [(each, top) for top, called in goals for each in called]
        for each, top in pairs:
            await arriving.name(each, top)
    return [each for each, _ in pairs]


@asynccontextmanager
async def _opened(source: Path) -> AsyncIterator[sources.Source]:
    """Opens the archive; what is wrong with it, then too, is told with its name."""
    if source != STANDARD_INPUT:
        async with sources.opened(source) as found:
            with naming(str(source)):
                yield found
        return
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        spooled = Path(folder) / "archive"
        try:
            await _spool(spooled)
            async with sources.opened(spooled) as found:
                with naming(str(spooled)):
                    yield found
        except (ArchiveInvalid, DigestMismatch) as error:
            raise type(error)(error.message.replace(str(spooled), "standard input")) from error


async def _spool(target: Path) -> None:
    with storage_errors(target), target.open("wb") as file:
        async with aclosing(pieces_of(0, Path("standard input"))) as pieces:
            async for piece in pieces:
                await finish(file.write, piece)


@dataclass(frozen=True, slots=True)
class _Top:
    """A manifest that the archive lists.

    Attributes:
        nodes: it, after all that is there below it.
        names: those that the archive gives it.
    """

    nodes: tuple[Node, ...]
    names: list[Name] = field(default_factory=list)

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(node.descriptor.digest for node in self.nodes)

    @property
    def subject(self) -> Digest | None:
        return self.root.manifest.subject.digest if self.root.manifest.subject else None


async def _tops(source: sources.Source) -> list[_Top]:
    """Finds what the archive lists, each once, in its order."""
    content, found = source.content, dict[Digest, _Top]()

    async def holds(wanted: Descriptor) -> bool:
        return content.holds(wanted)

    for name, descriptor in source.images:
        if descriptor.digest not in found:
            try:
                found[descriptor.digest] = _Top(await nodes_of(content, holds, descriptor))
            except (ManifestInvalid, ManifestUnknown) as error:
                raise ArchiveInvalid(error.message) from error
        if name is not None:
            found[descriptor.digest].names.append(Name.of(Reference.parse(name)))
    return list(found.values())


def _named(tops: list[_Top], given: Sequence[Name]) -> list[tuple[_Top, Sequence[Name]]]:
    """Says what each is to be called: an image by its names, or those given; what refers to one goes where that goes.

    Archives list what refers to an image beside it, mostly without a name (as `oras` does).
    """
    referrers = [top for top in tops if any(top.subject in each.digests for each in tops if each is not top)]
    images = [top for top in tops if top not in referrers]
    if not images:
        raise ArchiveInvalid("expected an image, it holds none")
    if given and len(images) > 1:
        raise ArchiveInvalid(f"names are given for one image, it holds {len(images)}")
    goals: list[tuple[_Top, Sequence[Name]]] = []
    for top in images:
        names = given or top.names
        if not names:
            digest = top.root.descriptor.digest
            raise ArchiveInvalid(f"the image {digest} has no name in it: give it one after the archive's")
        goals.append((top, _consistent(names, top)))
    return goals + _following(goals, referrers, renamed=bool(given))


def _consistent(names: Sequence[Name], top: _Top) -> Sequence[Name]:
    digest = top.root.descriptor.digest
    for each in names:
        if each.digest not in (None, digest):
            raise ArchiveInvalid(f"{each}: the image has another digest, {digest}")
    return names


def _following(
    goals: Sequence[tuple[_Top, Sequence[Name]]], referrers: list[_Top], *, renamed: bool
) -> list[tuple[_Top, Sequence[Name]]]:
    where: dict[Digest, dict[RepositoryName, None]] = {}

    def place(top: _Top, repositories: Iterable[RepositoryName]) -> None:
        for digest in top.digests:
            where.setdefault(digest, {}).update(dict.fromkeys(repositories))

    for top, names in goals:
        place(top, [each.repository for each in names])
    found: list[tuple[_Top, Sequence[Name]]] = []
    waiting = referrers
    while waiting:
        known = set(where)
        # What refers to what refers to an image: each round is one step further away from it.
        near = [(top.subject, top) for top in waiting if top.subject and top.subject in where]
        if not near:
            raise ArchiveInvalid("what refers to something in it refers to nothing that has a name")
        for subject, top in near:
            names = [] if renamed else top.names
            names = names or [Name(each, digest=top.root.descriptor.digest) for each in where[subject]]
            found.append((top, names))
            place(top, [each.repository for each in names])
        waiting = [top for top in waiting if top.subject not in known]
    return found


class _Arriving:
    """Takes manifests in, each after what it names."""

    def __init__(self, store: Store, content: ArchiveContent, told: Told) -> None:
        self._store = store
        self._content = content
        self._told = told
        # Repositories that have a blob since this import: others take it from there.
        self._brought: dict[Digest, RepositoryName] = {}

    async def bring(self, top: _Top, name: Name) -> None:
        """Stores a manifest in the name's repository, and all below it, without a tag."""
        repository = self._store.repository(name.repository)
        self._told(telling.image(name, top.nodes))

        async def one(blob: Descriptor) -> None:
            self._told(telling.blob(blob, await self._blob(repository, blob)))

        await side_by_side(one, blobs_of(top.nodes), AT_ONCE)
        for node in top.nodes:
            manifest = node.manifest
            await repository.manifests.put(node.descriptor.digest, manifest.raw, manifest.media_type)

    async def name(self, name: Name, top: _Top) -> None:
        """Points the name's tag, if any, at what is stored."""
        manifest, digest = top.root.manifest, top.root.descriptor.digest
        if name.tag:
            repository = self._store.repository(name.repository)
            await repository.manifests.put(digest, manifest.raw, manifest.media_type, [name.tag])
            self._told(f"{name.repository}:{name.tag}: {digest}")

    async def _blob(self, repository: Repository, blob: Descriptor) -> str:
        if is_foreign(blob.media_type) and blob.urls and not self._content.holds(blob):
            return "left out: a foreign layer, which is not in the archive"
        with suppress(BlobUnknown):
            if await repository.blobs.size(blob.digest) == blob.size:
                return "already there"
        near = self._brought.get(blob.digest)
        if near and await repository.blobs.mount(blob.digest, near, lambda _: True):
            return f"taken over from {near}"
        await self._upload(repository, blob)
        self._brought[blob.digest] = repository.name
        return "imported"

    async def _upload(self, repository: Repository, blob: Descriptor) -> None:
        async with _begun(repository.uploads, blob.digest.algorithm) as upload, self._content.stream(blob) as pieces:
            try:
                await repository.uploads.commit(upload, blob.digest, pieces)
            except DigestInvalid as error:
                kind = DigestMismatch if self._content.told(blob) else ArchiveInvalid
                raise kind(f"{self._content.name(blob)}: {error.message}") from error


@asynccontextmanager
async def _begun(uploads: Uploads, algorithm: str) -> AsyncIterator[UUID]:
    """Begins an upload, and gives it up where its end is not reached, be it for a cancellation."""
    beginning = asyncio.ensure_future(uploads.begin(algorithm))
    try:
        yield await asyncio.shield(beginning)
    except BaseException:
        await ended(beginning)
        if not beginning.cancelled() and not beginning.exception():
            with suppress(BlobUploadUnknown):
                await uploads.cancel(beginning.result())
        raise
