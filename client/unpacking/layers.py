"""One layer onto a tree: its bytes are unpacked, and hashed packed and plain, on their only way through memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from client.archive.compression import Compression, compression_of, decoder
from client.unpacking.headers import Entry, entries
from client.unpacking.source import Source
from client.unpacking.tree import Tree
from client.wording import one_line
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, Verifier
from ocispec.errors import ArchiveInvalid, DigestMismatch, LayerInvalid
from storage.ingest import PIECE, storage_errors

_SUFFIXES = {
    ".tar": Compression.NONE,
    "+gzip": Compression.GZIP,
    ".gzip": Compression.GZIP,
    "+zstd": Compression.ZSTD,
    ".zstd": Compression.ZSTD,
}
# zstd allows frames that hold no content, also as the first (RFC 8878, section 3.1.2).
_SKIPPABLE = tuple(bytes((0x50 + each,)) + b"\x2a\x4d\x18" for each in range(16))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, the digest of its plain content, and the file that holds it."""

    descriptor: Descriptor
    diff_id: Digest
    path: Path


def put(layer: Layer, tree: Tree, place: Path) -> None:
    """Puts a layer onto a tree; blocks. An error leaves it half there.

    Args:
        layer: what is put there.
        tree: where.
        place: how messages call the tree.

    Raises:
        DigestMismatch: its bytes are not those of its digest, or not those of its diff id when they are unpacked.
        LayerInvalid: it is none, or must not be unpacked.
        StorageError: the file cannot be read, or the tree not be written.
    """
    digest = layer.descriptor.digest
    packed, plain = Verifier(digest), Verifier(layer.diff_id)
    with storage_errors(layer.path), layer.path.open("rb", buffering=0) as file:
        pieces = _hashed(_pieces(file), packed)
        try:
            tree.begin()
            _apply(Source(_hashed(_unpacked(pieces, layer.descriptor.media_type), plain)), tree, place)
        except (LayerInvalid, ArchiveInvalid) as error:
            # Damaged bytes have many symptoms and one name.
            _check(pieces, packed)
            raise LayerInvalid(f"layer {digest}: {error.message}") from error
        _check(pieces, packed)
    if not plain.verified():
        raise DigestMismatch(
            f"layer {digest}: expected the diff id {plain.digest}, its content hashes to {plain.actual}"
        )


def _apply(source: Source, tree: Tree, place: Path) -> None:
    for entry in entries(source):
        try:
            tree.apply(entry, source.body(entry.size))
        except OSError:
            with storage_errors(_path(place, entry)):
                raise
    source.drain()


def _path(place: Path, entry: Entry) -> Path:
    return place / one_line(entry.name[:200].decode("utf-8", "replace")).lstrip("/")


def _check(pieces: Iterator[bytes], packed: Verifier) -> None:
    for _ in pieces:
        pass
    if not packed.verified():
        raise DigestMismatch(f"layer {packed.digest} is damaged in the cache: its content hashes to {packed.actual}")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE):
        yield piece


def _hashed(pieces: Iterator[bytes], verifier: Verifier) -> Iterator[bytes]:
    for piece in pieces:
        verifier.update(piece)
        yield piece


def _unpacked(pieces: Iterator[bytes], media_type: str) -> Iterator[bytes]:
    first = next(pieces, b"")
    running = decoder(_compression(first, media_type))
    yield from running.decode(first)
    for piece in pieces:
        yield from running.decode(piece)
    running.close()


def _compression(head: bytes, media_type: str) -> Compression:
    """Tells the compression by the first bytes; a media type that says another one is not believed, and refused."""
    found = Compression.ZSTD if head.startswith(_SKIPPABLE) else compression_of(head)
    if media_type == mediatypes.OCTET_STREAM:
        return found
    told = next((kind for suffix, kind in _SUFFIXES.items() if media_type.endswith(suffix)), None)
    if told is None:
        raise LayerInvalid(f"expected the media type of a layer, got {media_type[:200]!r}")
    if told is not found:
        raise LayerInvalid(f"its media type tells {told.name.lower()}, its content is {found.name.lower()}")
    return found
