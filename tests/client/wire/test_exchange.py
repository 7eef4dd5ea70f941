from __future__ import annotations

from collections.abc import AsyncIterator

from client.wire.exchange import read


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for each in given:
        yield each


async def test_a_body_is_read_whole_up_to_its_bound():
    assert await read(pieces(b"ab", b"c"), 3) == b"abc"
    assert await read(pieces(), 0) == b""


async def test_a_longer_body_is_given_up():
    assert await read(pieces(b"ab", b"cd", b"ef"), 3) is None
