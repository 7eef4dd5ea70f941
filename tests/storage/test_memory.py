"""What only memory can get wrong: it ends, and it forgets."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.errors import PathUnknown, StorageFull
from storage.engine import INLINE, PIECE
from storage.memory import MemoryEngine


async def test_no_more_is_kept_than_the_limit_allows_and_what_goes_makes_room() -> None:
    engine = MemoryEngine(limit=4 * PIECE)
    await engine.write("a/one", b"x" * PIECE)
    await engine.write("a/up", b"")
    async with engine.append("a/up") as appender:
        await appender.write(b"y" * PIECE)
        with pytest.raises(StorageFull, match="a/up: no space left of 4194304 bytes of memory"):
            await appender.write(b"z" * (3 * PIECE))
        assert appender.size == PIECE
        await appender.truncate(0)
        await appender.write(b"z" * (2 * PIECE))
    with pytest.raises(StorageFull):
        await engine.write("b", b"x" * PIECE)
    await engine.move("a/up", "moved")
    await engine.write("moved", b"")
    await engine.write("b", b"x" * PIECE)
    await engine.delete("a")
    await engine.write("c", b"x" * (2 * PIECE))
    assert await engine.children("") == ["b", "c", "moved"]


async def test_a_large_object_is_read_without_a_copy_of_it() -> None:
    engine = MemoryEngine()
    await engine.write("large", bytes(64 * PIECE))
    tracemalloc.start()
    try:
        content = await engine.open("large")
        assert content.data is None
        assert sum([len(piece) async for piece in content.stream(3, 40 * PIECE)]) == 40 * PIECE
        assert tracemalloc.get_traced_memory()[1] < 4 * PIECE
    finally:
        tracemalloc.stop()
    await engine.write("small", bytes(INLINE))
    assert (await engine.open("small")).data == bytes(INLINE)


PATHS = st.sampled_from(["a", "a/b", "a/b/c", "a/c", "d", "d/e/f", "d/e", "a-b", "a-b/c"])


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["write", "delete", "move"]), PATHS, PATHS), max_size=25))
async def test_any_order_of_writing_moving_and_deleting_keeps_account(steps: list[tuple[str, str, str]]) -> None:
    """Against a plain table of paths: an object where a folder was replaces it, and the other way round."""
    engine, table = MemoryEngine(limit=PIECE), dict[str, bytes]()

    def forget(path: str) -> None:
        above = {path[:n] for n, letter in enumerate(path) if letter == "/"}
        for each in [each for each in table if each == path or each.startswith(f"{path}/") or each in above]:
            del table[each]

    for step, path, other in steps:
        if step == "write":
            forget(path)
            await engine.write(path, path.encode())
            table[path] = path.encode()
        elif step == "delete":
            for each in [each for each in table if each == path or each.startswith(f"{path}/")]:
                del table[each]
            await engine.delete(path)
        elif path in table:
            data = table.pop(path)
            forget(other)
            await engine.move(path, other)
            table[other] = data
        else:
            with pytest.raises(PathUnknown):
                await engine.move(path, other)
    for path, data in table.items():
        assert await engine.read(path, 100) == data
    assert await engine.children("") == sorted({path.partition("/")[0] for path in table})
    for name in await engine.children(""):
        await engine.delete(name)
    await engine.write("all", bytes(PIECE - 1024))
