"""Marking one repository: what it keeps, and what of it may go. Nothing is changed here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ocispec.digest import CANONICAL, Digest
from ocispec.reference import RepositoryName
from storage import paths
from storage.collecting import folders
from storage.collecting.references import reach
from storage.collecting.revisions import Revision, Tags, read_revisions, read_tags, read_target
from storage.collecting.rules import Rules
from storage.engine import Engine


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A manifest that nobody can read."""

    repository: RepositoryName
    digest: Digest
    problem: str


@dataclass(frozen=True, slots=True)
class RepositoryMarks:
    """What a repository keeps, and what of it goes.

    Attributes:
        name: the repository's.
        manifests: those in use.
        blobs: what these name besides, and what was linked lately.
        dead: manifests that go, each with the tags in whose history it stands.
        links: blobs whose links go.
        referrers: (subject, referrer) of entries of the referrers' index that go.
        hollow: folders of links that are gone, as Distribution leaves them.
        unreadable: manifests that may name anything.
        young: how many manifests are in use for nothing but being young.
        vanishes: whether nothing is left of the repository then.
    """

    name: RepositoryName
    manifests: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    dead: dict[Digest, tuple[str, ...]] = field(default_factory=dict)
    links: tuple[Digest, ...] = ()
    referrers: tuple[tuple[Digest, Digest], ...] = ()
    hollow: tuple[str, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    young: int = 0
    vanishes: bool = False

    @property
    def changes(self) -> bool:
        return bool(self.dead or self.links or self.referrers or self.hollow or self.vanishes)

    def without_what_stays(self) -> RepositoryMarks:
        return replace(self, manifests=(), blobs=())


async def mark_repository(engine: Engine, name: RepositoryName, rooms: frozenset[str], rules: Rules) -> RepositoryMarks:
    """Marks what the repository keeps; raises StorageError where that cannot be known.

    Args:
        engine: where the bytes rest.
        name: the repository's.
        rooms: which of its folders are there.
        rules: what goes.
    """
    revisions, tags = await read_revisions(engine, name), await read_tags(engine, name, targets=rules.untagged)
    marking = _Marking(engine, name, rules, revisions.found)
    await marking.mark_manifests(tags)
    await marking.mark_blobs()
    links = await marking.stale_links() if paths.LAYERS in rooms else ()
    referrers = await marking.stale_referrers() if folders.REFERRERS in rooms else ()
    return RepositoryMarks(
        name,
        tuple(sorted(marking.live)),
        tuple(each for each in marking.kept if each not in marking.live),
        await marking.dead(tags),
        links,
        referrers,
        (*(paths.revision(name, each) for each in revisions.hollow), *marking.hollow),
        marking.unreadable,
        marking.young,
        not (marking.live or tags.names or marking.holds_more or rooms - folders.ROOMS)
        and not await engine.children(paths.uploads(name)),
    )


class _Marking:
    """The marking of one repository.

    Attributes:
        live: manifests in use.
        kept: digests of blobs that the repository keeps, manifests among them, in the order in which they were found.
        unreadable: manifests in use, or perhaps in use, that cannot be read.
        young: how many manifests are in use for nothing but being young, or named by one that is.
        hollow: folders of links of blobs that are gone.
        holds_more: whether it links a blob, or a referrer, for another reason than a manifest of its own.
    """

    def __init__(self, engine: Engine, name: RepositoryName, rules: Rules, revisions: dict[Digest, Revision]) -> None:
        self._engine, self._name, self._rules, self._revisions = engine, name, rules, revisions
        self._references = {digest: each.references for digest, each in revisions.items()}
        self._whole = False
        self.live: set[Digest] = set()
        self.kept: dict[Digest, None] = {}
        self.unreadable: tuple[Unreadable, ...] = ()
        self.young = 0
        self.hollow: list[str] = []
        self.holds_more = False

    async def mark_manifests(self, tags: Tags) -> None:
        self.live = reach(tags.digests if self._rules.untagged else self._revisions, self._references)
        kept = reach(await self._young(), self._references)
        self.young = len(kept - self.live)
        self.live |= kept
        self.unreadable = tuple(
            Unreadable(self._name, each.digest, each.problem)
            for each in self._revisions.values()
            # What is gone and not in use can be no signature of something that is: nobody can have it.
            if each.problem and (each.digest in self.live or not each.lost)
        )
        self._whole = bool(self.unreadable) and not self._rules.force
        if self._whole:
            self.live = set(self._revisions)

    async def _young(self) -> list[Digest]:
        found: list[Digest] = []

        async def enter(digest: Digest) -> None:
            if not await self._rules.age(self._engine, paths.revision_link(self._name, digest)):
                found.append(digest)

        await folders.side_by_side([each for each in self._revisions if each not in self.live], enter)
        return found

    async def mark_blobs(self) -> None:
        for digest in sorted(self.live):
            named = self._revisions[digest].references.named
            self.kept.update(dict.fromkeys((digest, self._revisions[digest].target, *named)))
        for digest in list(self.kept):
            await self._keep_target(digest)

    async def stale_links(self) -> tuple[Digest, ...]:
        """Links whose blobs no manifest in use names; keeps what was linked lately."""
        found: list[Digest] = []

        async def judge(digest: Digest) -> None:
            goes = await self._rules.age(self._engine, paths.layer_link(self._name, digest))
            if goes is None:
                self.hollow.append(paths.layer(self._name, digest))
            elif goes and not self._whole:
                found.append(digest)
            else:
                self.kept[digest] = None
                self.holds_more = True
                await self._keep_target(digest)

        linked = await folders.digests(self._engine, f"{paths.repository(self._name)}/{paths.LAYERS}")
        await folders.side_by_side([each for each in linked if each not in self.kept], judge)
        return tuple(sorted(found))

    async def stale_referrers(self) -> tuple[tuple[Digest, Digest], ...]:
        """Entries of referrers that are not here, or go; what was entered lately awaits its manifest."""
        found: list[tuple[Digest, Digest]] = []
        for subject in await folders.digests(self._engine, f"{paths.repository(self._name)}/{folders.REFERRERS}"):
            for digest in await folders.digests(self._engine, paths.referrers(self._name, subject)):
                if digest in self.live:
                    continue
                goes = await self._rules.age(self._engine, paths.referrer(self._name, subject, digest))
                if goes:
                    found.append((subject, digest))
                self.holds_more |= goes is False
        return tuple(found)

    async def dead(self, tags: Tags) -> dict[Digest, tuple[str, ...]]:
        """Manifests that go, with the tags that once pointed at them."""
        histories: dict[Digest, list[str]] = {each: [] for each in self._revisions if each not in self.live}

        async def enter(tag: str) -> None:
            for digest in await folders.digests(self._engine, f"{paths.tags(self._name)}/{tag}/index"):
                if digest in histories:
                    histories[digest].append(tag)

        if histories:
            await folders.side_by_side(tags.names, enter)
        return {digest: tuple(sorted(found)) for digest, found in histories.items()}

    async def _keep_target(self, digest: Digest) -> None:
        """Distribution keeps content of other algorithms under its sha256, and links it under both."""
        if digest.algorithm == CANONICAL and not self._whole:
            return
        target = await read_target(self._engine, paths.layer_link(self._name, digest))
        if target:
            self.kept[target] = None
