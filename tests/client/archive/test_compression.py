"""Compressed streams: whole ones give what went in, in pieces; others are refused."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from client.archive.compression import PIECE, Compression, compression_of, decoder, unpacked
from ocispec.errors import ArchiveInvalid

PACK = {Compression.NONE: bytes, Compression.GZIP: gzip.compress, Compression.ZSTD: zstd.compress}

kinds = pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD])


def unpack(data: bytes, kind: Compression, step: int = 7) -> bytes:
    running = decoder(kind)
    pieces = [part for at in range(0, len(data), step) for part in running.decode(data[at : at + step])]
    running.close()
    assert all(len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@given(st.binary(max_size=2000), st.sampled_from(Compression), st.integers(1, 3000))
def test_whatever_went_in_comes_out(data: bytes, kind: Compression, step: int):
    assert unpack(PACK[kind](data), kind, step) == data


@kinds
def test_frames_may_follow_each_other(kind: Compression):
    assert unpack(PACK[kind](b"a") + PACK[kind](b"b"), kind) == b"ab"


def test_zeros_may_follow_gzip():
    assert unpack(gzip.compress(b"a") + bytes(20) + gzip.compress(b"b") + bytes(20), Compression.GZIP) == b"ab"


@kinds
def test_a_bomb_comes_in_small_pieces(kind: Compression):
    size = 20 * PIECE
    assert unpack(PACK[kind](bytes(size)), kind, step=PIECE) == bytes(size)


@kinds
@pytest.mark.parametrize("cut", [5, -1])
def test_an_early_end_is_noticed(kind: Compression, cut: int):
    with pytest.raises(ArchiveInvalid, match="content ends early"):
        unpack(PACK[kind](b"some content")[:cut], kind)


@kinds
def test_damage_is_noticed(kind: Compression):
    data = bytearray(PACK[kind](b"some content" * 100))
    data[4:12] = b"\xff" * 8
    with pytest.raises(ArchiveInvalid, match="content is damaged"):
        unpack(bytes(data), kind)


def test_the_magic_tells():
    assert [compression_of(pack(b"x")) for pack in PACK.values()] == list(PACK)
    assert compression_of(b"") is Compression.NONE


async def test_a_stream_is_unpacked_while_it_comes():
    async def pieces() -> AsyncIterator[bytes]:
        for byte in gzip.compress(b"content"):
            yield bytes([byte])

    assert b"".join([piece async for piece in unpacked(pieces(), Compression.GZIP)]) == b"content"
