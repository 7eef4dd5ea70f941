"""`client.transfers.content.Content` of an archive on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from client.archive.members import Extent
from client.wording import one_line, shortened
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestMismatch
from storage.ingest import storage_errors
from storage.layout import MAX_DOCUMENT

_MESSAGE = 600


class Places(Protocol):
    """Tells where the members of an archive lie."""

    def find(self, name: str) -> Extent | None:
        """Returns where a member lies, None where there is none."""


class Folder:
    """`Places` of an unpacked image layout; asked for names of the specification's, never for those of an archive."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str) -> Extent | None:
        path = self._root / name
        with storage_errors(path):
            return Extent(path, 0, path.stat().st_size) if path.is_file() else None


class ArchiveContent:
    """Content by digest: blobs of an image layout, and what a docker-archive names otherwise.

    Args:
        label: how messages call the archive.
        places: tells where its members lie.
    """

    def __init__(self, label: str, places: Places) -> None:
        self._label = label
        self._places = places
        self._known: dict[Digest, tuple[str, Extent]] = {}
        self._made: dict[Digest, bytes] = {}

    def know(self, digest: Digest, name: str, place: Extent) -> None:
        """Takes the member `name` for the blob `digest`."""
        self._known[digest] = name, place

    def make(self, digest: Digest, data: bytes) -> None:
        """Takes a manifest that does not stand in the archive."""
        self._made[digest] = data

    def holds(self, wanted: Descriptor) -> bool:
        """Whether it is there, be it whole or not."""
        return wanted.digest in self._made or self._find(wanted.digest)[1] is not None

    def name(self, wanted: Descriptor) -> str:
        """How the member is called."""
        return self._find(wanted.digest)[0]

    def told(self, wanted: Descriptor) -> bool:
        """Whether its digest comes from the config of a docker-archive, as the layer's diff id."""
        return wanted.digest in self._known

    def member(self, name: str) -> Extent | None:
        """Returns where a member lies, None where there is none."""
        return self._places.find(name)

    async def document(self, name: str) -> bytes | None:
        """Returns a small member by its name, None where there is none."""
        place = self._places.find(name)
        return None if place is None else await _document(name, place)

    async def read(self, wanted: Descriptor) -> bytes:
        """See `Content`; raises ArchiveInvalid where it is missing, too long, or not what its digest names."""
        if (made := self._made.get(wanted.digest)) is not None:
            return made
        with naming(self._label):
            name, place = self._place(wanted)
            data = await _document(name, place)
            if not wanted.digest.matches(data):
                actual = Digest.of(data, wanted.digest.algorithm)
                raise ArchiveInvalid(f"{name}: expected {wanted.digest}, its content hashes to {actual}")
        return data

    @asynccontextmanager
    async def stream(self, wanted: Descriptor) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Content`; raises ArchiveInvalid where it is missing or has another size."""
        with naming(self._label):
            _, place = self._place(wanted)
        async with aclosing(place.pieces()) as pieces:
            yield pieces

    def _find(self, digest: Digest) -> tuple[str, Extent | None]:
        name = f"blobs/{digest.algorithm}/{digest.hex}"
        return self._known.get(digest) or (name, self._places.find(name))

    def _place(self, wanted: Descriptor) -> tuple[str, Extent]:
        name, place = self._find(wanted.digest)
        if place is None:
            raise ArchiveInvalid(f"{name}: expected {wanted.size} bytes of {wanted.media_type}, it is missing")
        if place.size != wanted.size:
            raise ArchiveInvalid(f"{name}: expected {wanted.size} bytes of {wanted.media_type}, it has {place.size}")
        return name, place


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Lets messages on an archive begin with its name, once."""
    try:
        yield
    except (ArchiveInvalid, DigestMismatch) as error:
        if error.message.startswith(f"{label}: "):
            raise
        # Names and media types of a hostile archive are any text, of any length.
        raise type(error)(f"{label}: {shortened(one_line(error.message), _MESSAGE)}") from error


async def _document(name: str, place: Extent) -> bytes:
    if place.size > MAX_DOCUMENT:
        raise ArchiveInvalid(f"{name}: expected at most {MAX_DOCUMENT} bytes, it has {place.size}")
    return await place.read()
