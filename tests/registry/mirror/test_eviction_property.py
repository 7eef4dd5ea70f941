"""Any mirror: whatever is fetched, used, pushed beside it, pinned, evicted or cut short, nobody's image breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag
from registry.mirror import tree
from registry.mirror.expiry import expire
from registry.mirror.index import Index
from registry.mirror.space import Share
from storage.blobs import HostedBlobs
from storage.memory import MemoryEngine
from tests.registry.mirror.keeping import HOSTED, A, B, C, Crash, Crashing, Keeping, has, index, manifest

LAYERS = tuple(bytes([65 + n]) * (100 * 2**n) for n in range(5))
IMAGES = [(LAYERS[0], LAYERS[1]), (LAYERS[1], LAYERS[2], LAYERS[3]), (LAYERS[3], LAYERS[4]), (LAYERS[4],)]
MANIFESTS = [manifest(*each) for each in IMAGES]
BOTH = index(*MANIFESTS[:2])
CONTENT = {Digest.of(each): each for each in (*LAYERS, *MANIFESTS, BOTH)}
TAGS = ("1", "2")
NAMES = (A, B, C)

SHARES = ("", "docker.io", "ghcr.io")

images = st.integers(0, len(IMAGES) - 1)
names = st.sampled_from(NAMES)
tags = st.sampled_from(TAGS)
crashes = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 8])


class Mirrors(RuleBasedStateMachine):
    """A tree in memory, and the index of it on disk."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.tree = Keeping(Crashing(MemoryEngine()), Path(self.folder.name))
        self.pushed: set[Digest] = set()
        self.pins: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            self.do(self.tree.usage.index.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @rule(name=names, image=images, tag=st.none() | tags, some=st.integers(0, 3))
    def fetch(self, name: RepositoryName, image: int, tag: str | None, some: int) -> None:
        self.do(self.tree.fetch(name, MANIFESTS[image], IMAGES[image][:some], tag))

    @rule(name=names, tag=tags)
    def fetch_index(self, name: RepositoryName, tag: str) -> None:
        self.do(self.tree.fetch(name, BOTH, (), tag))
        for image in (0, 1):
            self.do(self.tree.fetch(name, MANIFESTS[image], IMAGES[image]))

    @rule(name=names, layer=st.sampled_from(LAYERS))
    def use(self, name: RepositoryName, layer: bytes) -> None:
        self.tree.now += 1
        self.tree.usage.used(name, Digest.of(layer))
        self.do(self.tree.usage.flush())

    @rule(image=images)
    def push(self, image: int) -> None:
        self.pushed.add(self.do(self.tree.push(HOSTED, MANIFESTS[image], IMAGES[image])))

    @rule(name=names, layer=st.sampled_from(LAYERS))
    def mount(self, name: RepositoryName, layer: bytes) -> None:
        hosted, digest = HostedBlobs(self.tree.engine, HOSTED), Digest.of(layer)
        if self.do(hosted.mount(digest, name, lambda _name: True)):
            self.pushed.add(digest)

    @rule(name=names, tag=st.none() | tags, on=st.booleans())
    def pin(self, name: RepositoryName, tag: str | None, on: bool) -> None:
        text = f"{name}:{tag}" if tag else str(name)
        self.do(self.tree.usage.index.do(Index.pin if on else Index.unpin, [text]))
        (self.pins.add if on else self.pins.discard)(text)

    @rule(
        share=st.sampled_from(["", "docker.io", "ghcr.io"]),
        goal=st.integers(0, 6000),
        crash=crashes,
        done=st.booleans(),
    )
    def evict(self, share: str, goal: int, crash: int, done: bool) -> None:
        whose = Share(share, f"{share}/" if share else "")
        pinned = self.do(self.whole_pinned())
        self.tree.engine.left, self.tree.engine.done = crash, done
        try:
            self.do(self.tree.usage.evictor.make_room(whose, goal))
        except Crash:
            self.restart()
        else:
            stays = self.do(self.needed(whose))
            sizes = sum(len(CONTENT[each]) for each in stays)
            assert self.do(self.tree.kept(whose.prefix)) <= max(goal, sizes)
        self.tree.engine.left = 0
        assert pinned <= self.do(self.whole_pinned())

    @rule(share=st.sampled_from(["docker.io", "ghcr.io"]), age=st.integers(0, 10))
    def let_expire(self, share: str, age: int) -> None:
        usage, whose = self.tree.usage, Share(share, f"{share}/")
        self.do(expire(whose, self.tree.now - age, usage.index, usage.remover))
        left = self.do(usage.index.do(Index.oldest, whose.prefix, manifests=False, limit=1000))
        stays = self.do(self.needed(whose))
        assert all(each.used >= self.tree.now - age or each.digest in stays for each in left)

    @rule(lost=st.booleans())
    def come_back(self, lost: bool) -> None:
        if lost:
            self.do(self.tree.usage.index.close())
            for each in self.tree.usage.index.path.parent.iterdir():
                each.unlink()
            self.pins.clear()
        self.restart()

    def restart(self) -> None:
        self.tree.engine.left = 0
        self.do(self.tree.usage.index.close())
        self.tree.restart()
        self.do(self.tree.usage.completed(again=True))

    async def needed(self, share: Share) -> set[Digest]:
        """What has to stay in the repositories of a share, told from the tree alone."""
        found = await self.pinned()
        for link in await tree.linked(self.tree.engine, list(CONTENT)):
            if link.name == HOSTED:
                found.add(link.digest)
        return found

    async def pinned(self) -> set[Digest]:
        found: set[Digest] = set()
        for text in self.pins:
            name, _, tag = text.partition(":")
            repository = RepositoryName(name)
            manifests = await tree.manifests(self.tree.engine, repository)
            if tag:
                manifests = [each async for found_, each in tree.tags(self.tree.engine, repository) if found_ == tag]
            found |= await tree.needed(self.tree.engine, repository, manifests)
        return found

    async def whole_pinned(self) -> set[Digest]:
        """What is pinned, and here."""
        return {each for each in await self.pinned() if await has(self.tree.engine, each)}

    @invariant()
    def what_was_pushed_is_whole(self) -> None:
        if not hasattr(self, "tree"):
            return
        for digest in self.pushed:
            raw = CONTENT[digest]
            if raw in MANIFESTS:
                image = IMAGES[MANIFESTS.index(raw)]
                stored = self.do(self.tree.store.repository(HOSTED).manifests.get(digest))
                assert stored.raw == raw
                for layer in image:
                    assert self.do(HostedBlobs(self.tree.engine, HOSTED).size(Digest.of(layer))) == len(layer)
            else:
                assert self.do(HostedBlobs(self.tree.engine, HOSTED).size(digest)) == len(raw)

    @invariant()
    def the_index_agrees_with_the_tree(self) -> None:
        if not hasattr(self, "tree"):
            return
        found = {
            (str(link.name), str(link.kind), str(link.digest)) for name in NAMES for link in self.do(self.links(name))
        }
        assert self.do(self.tree.entered()) == found
        linked = {link.digest for link in self.do(tree.linked(self.tree.engine, list(CONTENT)))}
        assert self.do(self.tree.bytes_here()) == linked, "nothing lies there that nobody links"
        digests = {digest for _, _, digest in found}
        assert self.do(self.tree.kept()) == sum(len(CONTENT[Digest.parse(each)]) for each in digests)

    async def links(self, name: RepositoryName) -> list[Any]:
        return [link async for link, _, _ in tree.fetched(self.tree.engine, name)]

    @invariant()
    def tags_lead_to_manifests(self) -> None:
        if not hasattr(self, "tree"):
            return
        for name in NAMES:
            for tag in TAGS:
                with suppress(LookupError):
                    self.do(self.asked(name, tag))

    async def asked(self, name: RepositoryName, tag: str) -> None:
        repository = self.tree.store.repository(name)
        here = dict([each async for each in tree.tags(self.tree.engine, name)])
        if tag in here:
            assert (await repository.manifests.get(Tag(tag))).digest == here[tag]


TestMirrors = Mirrors.TestCase
TestMirrors.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
