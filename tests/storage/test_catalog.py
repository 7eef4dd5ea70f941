"""Pages of repositories and tags: complete, in order, none twice, while others push and delete; and cheap."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from storage import links, paths
from storage.catalog import repositories
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from storage.repository import Page
from storage.store import Store

DIGEST = Digest.of(b"{}")
NAME = RepositoryName("team/app")
LAYOUTS = {
    "flat": [f"name-{n:05}" for n in range(3000)],
    "nested": [f"team-{n // 50:02}/app-{n % 50:02}" for n in range(3000)],
    "mixed": [f"{'a-' * (n % 3)}b{n:04}{'/c' * (n % 2)}{'.d' * (n % 5 == 0)}" for n in range(3000)],
}


@pytest.fixture(params=["files", "memory"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return FilesEngine(tmp_path) if request.param == "files" else MemoryEngine()


def revision(name: str) -> str:
    return paths.revision_link(RepositoryName.parse(name), DIGEST)


async def begin(engine: Engine, name: str) -> None:
    """Makes a repository, without the waits for the disk that a push has."""
    await engine.write(revision(name), str(DIGEST).encode(), durable=False)


async def all_pages(page: Callable[[str], Awaitable[Page]]) -> list[str]:
    found: list[str] = []
    more = True
    while more:
        got = await page(found[-1] if found else "")
        found += got.entries
        more = got.more
    return found


COMPONENT = st.from_regex(r"[ab]((-{1,2}|[.]|__?)[ab])?", fullmatch=True)
NAMES = st.sets(st.lists(COMPONENT, min_size=1, max_size=3).map("/".join), max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(names=NAMES, size=st.integers(1, 4), after=st.text("ab/.-_c", max_size=6))
async def test_any_names_are_paged_in_their_order_from_anywhere(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], size: int, after: str
) -> None:
    folder = tmp_path_factory.mktemp("root")
    for engine in (FilesEngine(folder), MemoryEngine()):
        for name in names:
            await begin(engine, name)
        store = Store(engine)
        assert await all_pages(lambda last, store=store: store.catalog(last, size)) == sorted(names)  # type: ignore[misc]
        expected = [name for name in sorted(names) if name > after]
        assert await store.catalog(after, size) == Page.of(expected, size)
    shutil.rmtree(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_pages_of_a_catalogue_are_complete_while_others_push_and_delete(engine: Engine, layout: str) -> None:
    lasting, passing = LAYOUTS[layout][::2], LAYOUTS[layout][1::2]
    for name in lasting:
        await begin(engine, name)
    store, done = Store(engine), asyncio.Event()

    async def churn() -> None:
        while not done.is_set():
            for name in passing[:: len(passing) // 40]:
                await begin(engine, name)
                await asyncio.sleep(0)
            for name in passing[:: len(passing) // 40]:
                await engine.delete(f"{paths.REPOSITORIES}/{name}/{paths.MANIFESTS}", durable=False)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(churn())
        for size in (100, 313):
            found = await all_pages(lambda last, size=size: store.catalog(last, size))  # type: ignore[misc]
            assert found == sorted(set(found))
            assert set(lasting) <= set(found) <= {*lasting, *passing}
        done.set()


async def test_pages_of_tags_are_complete_while_others_push_and_delete(engine: Engine) -> None:
    names = [f"v{n // 100}.{n % 100}" for n in range(2000)]
    lasting, passing = names[::2], [Tag(name) for name in names[1::40]]

    async def point(tag: str) -> None:
        await engine.write(paths.tag_current_link(NAME, Tag(tag)), str(DIGEST).encode(), durable=False)

    for name in lasting:
        await point(name)
    tags, done = Store(engine).repository(NAME).tags, asyncio.Event()

    async def churn() -> None:
        while not done.is_set():
            for tag in passing:
                await point(tag)
                await asyncio.sleep(0)
            for tag in passing:
                await engine.delete(paths.tag(NAME, tag), durable=False)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(churn())
        for size in (50, 313):
            found = await all_pages(lambda last, size=size: tags.page(last, size))  # type: ignore[misc]
            assert found == sorted(set(found))
            assert set(lasting) <= set(found) <= {*lasting, *passing}
        done.set()


class Counting(MemoryEngine):
    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[str] = []
        self.names = 0

    async def children(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        found = await super().children(path, after, limit)
        self.looked_at.append(path)
        self.names += len(found)
        return found

    async def read(self, path: str, limit: int) -> bytes:
        self.looked_at.append(path)
        return await super().read(path, limit)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", [0, 1500, 2899])
async def test_a_page_of_the_catalogue_looks_at_what_it_shows_alone(layout: str, place: int) -> None:
    engine, names = Counting(), sorted(LAYOUTS[layout])
    for name in names:
        await begin(engine, name)
    page = await Store(engine).catalog(names[place], 100)
    assert page == Page.of(names[place + 1 : place + 102], 100)
    # Each shown and the one behind, what lies below each, and where nothing else leads there, the folder above.
    assert len(engine.looked_at) <= (3 if layout == "mixed" else 2) * 101 + 15
    assert engine.names <= 2000


async def test_a_page_of_tags_looks_at_what_it_shows_alone() -> None:
    engine, tags = Counting(), [f"v{n:04}" for n in range(3000)]
    for tag in tags:
        await links.write(engine, paths.tag_current_link(NAME, Tag(tag)), DIGEST)
    assert await Store(engine).repository(NAME).tags.page(tags[1500], 100) == Page.of(tags[1501:1602], 100)
    assert len(engine.looked_at) <= 102
    assert engine.names <= 256


async def test_a_page_is_full_or_the_last_also_where_some_names_are_not_shown(engine: Engine) -> None:
    names = [f"a{n:03}" for n in range(400)]
    for name in names:
        await begin(engine, name)
    shown = set(names[7::39])
    store = Store(engine)
    got = await store.catalog("", 8, lambda name: name in shown)
    assert got == Page.of(sorted(shown), 8)
    assert got.more
    assert await store.catalog(got.entries[-1], 8, lambda name: name in shown) == Page.of(sorted(shown)[8:], 8)


@pytest.mark.parametrize("last", ["a." * 20_000, "a/" * 20_000, "a-" * 300, "_manifests", "\0", "../x"])
async def test_a_page_behind_a_text_that_is_no_name_is_answered(engine: Engine, last: str) -> None:
    for name in ("a", "a/b", "b"):
        await begin(engine, name)
    found = [name async for name in repositories(engine, last)]
    assert found == [name for name in ("a", "a/b", "b") if name > last]
