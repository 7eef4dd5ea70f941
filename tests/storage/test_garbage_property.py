"""Any store, collected: all that is in use stays whole, all else that is old goes, and a crash changes nothing of it.

What is in use is told here once more, from the drawn description and not from the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import StorageError
from ocispec.reference import RepositoryName, Tag
from storage import paths
from storage.collecting import Plan, Rules, mark, plan_removals, sweep
from tests.support.stores import Builder, described, image, index

REPOSITORIES = ("a", "a/b", "c-d")
TAGS = ("t", "u")
LAYERS = tuple(b"layer %d" % n for n in range(5))
ABSENT = Digest.of(b"a subject that is nowhere")

sets = lambda items, most=3: st.frozensets(st.sampled_from(items), max_size=most)  # noqa: E731


@dataclass(frozen=True)
class Place:
    """A manifest in a repository."""

    tags: frozenset[str]
    young: bool
    torn: bool
    entered: bool  # in the referrers' index, where it has a subject


@dataclass(frozen=True)
class Image:
    """A manifest: an index where it has children. Numbers are those of manifests described before."""

    layers: frozenset[bytes]
    children: frozenset[int]
    subject: int | None
    annotated: bool
    places: dict[str, Place]
    removed: bool  # its bytes stay, and no repository links them any more


@dataclass(frozen=True)
class Description:
    images: tuple[Image, ...]
    torn_tags: frozenset[tuple[str, str]]
    links: frozenset[tuple[str, bytes, bool]]  # repository, layer, young
    loose: frozenset[tuple[bytes, bool]]  # content that nothing links, young
    uploads: frozenset[str]


@st.composite
def descriptions(draw: Any) -> Description:
    places = st.builds(Place, sets(TAGS), st.sampled_from([False, False, True]), st.booleans(), st.booleans())
    images = []
    for number in range(draw(st.integers(0, 7))):
        earlier = list(range(number))
        images.append(
            Image(
                draw(sets(LAYERS)),
                draw(sets(earlier)) if earlier else frozenset(),
                draw(st.sampled_from([None, None, -1, *earlier])),
                draw(st.booleans()),
                draw(st.dictionaries(st.sampled_from(REPOSITORIES), places, min_size=1, max_size=2)),
                draw(st.sampled_from([False, False, False, True])),
            )
        )
    pairs = st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(TAGS))
    links = st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from((*LAYERS, b"extra")), st.booleans())
    loose = st.tuples(st.sampled_from([b"loose 1", b"loose 2"]), st.booleans())
    return Description(
        tuple(images),
        draw(st.frozensets(pairs, max_size=1)),
        draw(st.frozensets(links, max_size=4)),
        draw(st.frozensets(loose, max_size=2)),
        draw(sets(REPOSITORIES, 1)),
    )


@dataclass
class Expected:
    """What the description says of the store: digests of manifests, and what each repository has."""

    digests: list[Digest] = field(default_factory=list)
    named: dict[Digest, set[Digest]] = field(default_factory=dict)
    subjects: dict[Digest, Digest] = field(default_factory=dict)
    young: dict[str, set[Digest]] = field(default_factory=dict)
    revisions: dict[str, set[Digest]] = field(default_factory=dict)
    tagged: dict[str, dict[str, Digest]] = field(default_factory=dict)
    histories: dict[tuple[str, str], set[Digest]] = field(default_factory=dict)
    links: dict[str, dict[Digest, bool]] = field(default_factory=dict)
    content: dict[Digest, bool] = field(default_factory=dict)

    def live(self, repo: str, torn: Iterable[tuple[str, str]], *, untagged: bool) -> set[Digest]:
        revisions = self.revisions.get(repo, set())
        if not untagged:
            return revisions
        live = {digest for tag, digest in self.tagged.get(repo, {}).items() if (repo, tag) not in torn}
        for each in torn:
            live |= self.histories.get(each, set()) if each[0] == repo else set()
        live = (live | self.young.get(repo, set())) & revisions
        while True:
            more = {named for each in live for named in self.named[each]}
            more |= {each for each in revisions if self.subjects.get(each) in live}
            if more & revisions <= live:
                return live
            live |= more & revisions


async def build(store: Builder, drawn: Description) -> Expected:
    expected = Expected()

    async def layer(repo: str, data: bytes, *, young: bool = False) -> Digest:
        digest = await store.content(data)
        expected.content.setdefault(digest, False)
        links = expected.links.setdefault(repo, {})
        links[digest] = links.get(digest, False) or young
        await store.link(repo, digest, young=links[digest])
        return digest

    for number, each in enumerate(drawn.images):
        await build_image(store, expected, number, each, layer)
    for repo, data, young in drawn.links:
        await layer(repo, data, young=young)
    for data, young in sorted(drawn.loose):
        digest = await store.content(data, young=young)
        expected.content[digest] = young
    for repo in drawn.uploads:
        await store.upload(repo, b"some")
    for repo, tag in drawn.torn_tags:
        if tag in expected.tagged.get(repo, {}):
            await store.write(paths.tag_current_link(RepositoryName(repo), Tag(tag)), b"")
    return expected


async def build_image(store: Builder, expected: Expected, number: int, each: Image, layer: Any) -> None:
    more: dict[str, Any] = {"annotations": {"n": str(number), "base": str(ABSENT)}} if each.annotated else {}
    subject = None if each.subject is None else ABSENT if each.subject < 0 else expected.digests[each.subject]
    if subject:
        more["subject"] = described(subject)
    named = {subject} - {None}
    children = [expected.digests[child] for child in sorted(each.children)]
    config, blobs = b"config %d" % number, sorted(each.layers)
    if children:
        manifest = {**index(children, **more), "number": number}
        named |= set(children)
    else:
        named |= {Digest.of(blob) for blob in (config, *blobs)}
        manifest = image(Digest.of(config), [Digest.of(blob) for blob in blobs], **more)
    for repo, place in each.places.items():
        for blob in () if children else (config, *blobs):
            await layer(repo, blob)
        digest = await store.manifest(repo, manifest, young=place.young)
        name = RepositoryName(repo)
        expected.content[digest] = False
        expected.named[digest] = {one for one in named if one}
        if subject:
            expected.subjects[digest] = subject
            if place.entered:
                await store.referrer(repo, subject, digest)
        for tag in place.tags:
            await store.tag(repo, tag, digest)
            expected.tagged.setdefault(repo, {})[tag] = digest
            expected.histories.setdefault((repo, tag), set()).add(digest)
        if each.removed:
            await store.engine.delete(paths.revision(name, digest))
            continue
        expected.revisions.setdefault(repo, set()).add(digest)
        if place.young:
            expected.young.setdefault(repo, set()).add(digest)
        if place.torn:
            await store.write(paths.revision_link(name, digest), b"", young=place.young)
    if len(expected.digests) == number:
        expected.digests.append(digest)


async def planned(store: Builder, rules: Rules) -> Plan:
    return await plan_removals(store.engine, rules, await mark(store.engine, rules))


def removed_by(plan: Plan) -> set[str]:
    """Paths of all objects that the plan says will go."""
    gone = {paths.blob_data(each.digest) for each in plan.blobs}
    for each in plan.repositories:
        gone |= {paths.layer_link(each.name, link) for link in each.links}
        gone |= {paths.revision_link(each.name, digest) for digest in each.dead}
        gone |= {paths.referrer(each.name, *pair) for pair in each.referrers}
        gone |= {
            paths.tag_index_link(each.name, Tag(tag), digest) for digest, tags in each.dead.items() for tag in tags
        }
    return gone


def expected_paths(drawn: Description, expected: Expected, before: dict[str, bytes], *, untagged: bool) -> set[str]:
    """Paths of all objects that have to stay."""
    kept = {digest for digest, young in expected.content.items() if young}
    gone: set[str] = set()
    for repo in REPOSITORIES:
        name = RepositoryName(repo)
        live = expected.live(repo, drawn.torn_tags, untagged=untagged)
        named = live | {each for digest in live for each in expected.named[digest]}
        links = expected.links.get(repo, {})
        kept |= named | {digest for digest, young in links.items() if young}
        gone |= {paths.layer_link(name, digest) for digest, young in links.items() if not young and digest not in named}
        for digest in expected.revisions.get(repo, set()) - live:
            gone.add(paths.revision_link(name, digest))
            gone |= {paths.tag_index_link(name, Tag(tag), digest) for tag in TAGS}
        for digest, subject in expected.subjects.items():
            if digest not in live:
                gone.add(paths.referrer(name, subject, digest))
    gone |= {paths.blob_data(digest) for digest in expected.content if digest not in kept}
    return set(before) - gone


class Crash(StorageError):
    """The process ends here."""


class Crashing:
    """An engine that stops at the `at`-th removal: before it is done, or right after."""

    def __init__(self, engine: Any, at: int, *, done: bool) -> None:
        self._engine, self._left, self._done = engine, at, done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def delete(self, path: str, *, durable: bool = True) -> None:
        await self._removal(partial(self._engine.delete, durable=durable), path)

    async def discard(self, paths: Sequence[str]) -> None:
        for each in paths:
            await self._removal(lambda path: self._engine.discard([path]), each)

    async def _removal(self, remove: Callable[[str], Awaitable[None]], path: str) -> None:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._done):
            raise Crash(path)
        await remove(path)
        if self._left == 0:
            raise Crash(path)


async def crashed_at(store: Builder, rules: Rules, at: int, *, done: bool) -> bool:
    """Whether the sweep has so many removals; it stopped there, and a second run finished."""
    plan = await planned(store, rules)
    try:
        await sweep(Crashing(store.engine, at, done=done), plan)
    except Crash:
        await sweep(store.engine, await planned(store, rules))
        return True
    return False


@given(descriptions(), st.booleans())
@settings(max_examples=120)
def test_any_store_in_memory(drawn: Description, untagged: bool) -> None:
    asyncio.run(hold(Builder.in_memory(), drawn, untagged=untagged))


@given(descriptions(), st.booleans())
@settings(max_examples=12)
def test_any_store_on_files(drawn: Description, untagged: bool) -> None:
    with TemporaryDirectory() as root:
        asyncio.run(hold(Builder.on_files(Path(root)), drawn, untagged=untagged))


async def hold(store: Builder, drawn: Description, *, untagged: bool) -> None:
    expected = await build(store, drawn)
    rules = Rules(store.before, untagged)
    before = await store.snapshot()
    plan = await planned(store, rules)
    assert plan == await planned(store, rules)
    assert await store.snapshot() == before
    await sweep(store.engine, plan)
    after = await store.snapshot()
    assert set(after) == expected_paths(drawn, expected, before, untagged=untagged)
    assert set(before) - set(after) == removed_by(plan)
    assert after == {path: before[path] for path in after}
    again = await planned(store, rules)
    assert (again.blobs, again.repositories, again.marked) == ((), (), plan.marked)


@given(descriptions())
@settings(max_examples=25)
def test_a_crash_at_any_removal_is_finished_by_the_next_run(drawn: Description) -> None:
    asyncio.run(hold_crashes(drawn))


async def hold_crashes(drawn: Description) -> None:
    original = Builder.in_memory()
    await build(original, drawn)
    rules = Rules(original.before, untagged=True)
    whole = original.copy()
    await sweep(whole.engine, await planned(whole, rules))
    wanted = await whole.snapshot()
    at, more = 1, True
    while more:
        for done in (False, True):
            store = original.copy()
            more = await crashed_at(store, rules, at, done=done)
            assert await store.snapshot() == wanted
        at += 1


@pytest.mark.parametrize("done", [False, True])
async def test_a_crash_on_files_is_finished_by_the_next_run(tmp_path: Path, done: bool) -> None:
    at, more, ends = 1, True, []
    while more:
        store = Builder.on_files(tmp_path / str(at))
        subject = await store.image("a/b", b"dead", tag="t")
        await store.image("a/b", b"signature", subject=described(subject))
        await store.image("a/b", b"live", tag="t")
        await store.image("gone", b"gone")
        more = await crashed_at(store, Rules(store.before, untagged=True), at, done=done)
        ends.append(await store.snapshot())
        at += 1
    assert at > 10
    assert all(end == ends[0] for end in ends)
