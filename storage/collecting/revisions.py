"""The manifests and tags of one repository, as they lie there."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocispec.digest import HEX_LENGTHS, Digest
from ocispec.errors import DigestInvalid, ObjectTooLong, PathUnknown, StorageError
from ocispec.reference import RepositoryName
from storage import paths
from storage.collecting import folders
from storage.collecting.references import References
from storage.engine import Engine
from storage.repository import MAX_MANIFEST

_LINK = 1024


@dataclass(frozen=True, slots=True)
class Revision:
    """A manifest that a repository links.

    Attributes:
        digest: its name here.
        target: what the link names; the digest itself where the link is torn.
        references: what it names; nothing where it cannot be read.
        problem: why it cannot be read; None where it can.
        lost: whether it cannot be read because its bytes are gone.
    """

    digest: Digest
    target: Digest
    references: References = field(default_factory=References)
    problem: str | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Revisions:
    """Manifests of a repository, in order of digests, and folders of manifests that Distribution deleted."""

    found: dict[Digest, Revision]
    hollow: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of a repository.

    Attributes:
        names: of their folders.
        digests: what they point at. A tag whose link is torn points at whatever it once pointed at.
    """

    names: tuple[str, ...]
    digests: frozenset[Digest]


async def read_revisions(engine: Engine, name: RepositoryName) -> Revisions:
    """Reads every manifest of the repository once.

    Raises:
        StorageError: a link cannot be read, or there are manifests under digests of an algorithm that is not known
            here: nobody can tell what they name.
    """
    folder = f"{paths.manifests(name)}/revisions"
    unknown = [each for each in await engine.children(folder) if each not in HEX_LENGTHS]
    if unknown:
        raise StorageError(f"{folder}/{unknown[0]}: manifests under an algorithm other than {', '.join(HEX_LENGTHS)}")
    found: dict[Digest, Revision] = {}
    hollow: list[Digest] = []

    async def enter(digest: Digest) -> None:
        link = await _read_link(engine, paths.revision_link(name, digest))
        if link is None:
            hollow.append(digest)
        else:
            found[digest] = await _read(engine, digest, _target(link) or digest)

    await folders.side_by_side(await folders.digests(engine, folder), enter)
    return Revisions(dict(sorted(found.items())), tuple(hollow))


async def read_tags(engine: Engine, name: RepositoryName, *, targets: bool) -> Tags:
    """Reads the tags' names, and what they point at where `targets`; raises StorageError where it cannot be read."""
    names = await engine.children(paths.tags(name))
    found: set[Digest] = set()

    async def enter(tag: str) -> None:
        folder = f"{paths.tags(name)}/{tag}"
        link = await _read_link(engine, f"{folder}/current/link")
        target = None if link is None else _target(link)
        if target:
            found.add(target)
        elif link is not None:
            found.update(await folders.digests(engine, f"{folder}/index"))

    await folders.side_by_side(names if targets else (), enter)
    return Tags(tuple(names), frozenset(found))


async def read_target(engine: Engine, path: str) -> Digest | None:
    """What the link names; None where there is none, or a torn one."""
    link = await _read_link(engine, path)
    return None if link is None else _target(link)


async def _read(engine: Engine, digest: Digest, target: Digest) -> Revision:
    try:
        raw = await engine.read(paths.blob_data(target), MAX_MANIFEST)
    except PathUnknown:
        return Revision(digest, target, problem="its bytes are gone", lost=True)
    except StorageError as error:
        return Revision(digest, target, problem=error.message)
    if not target.matches(raw):
        return Revision(
            digest, target, problem=f"its bytes are damaged: they hash to {Digest.of(raw, target.algorithm)}"
        )
    return Revision(digest, target, References.of(raw))


async def _read_link(engine: Engine, path: str) -> bytes | None:
    """Bytes of a link, or of what is left of it; None where there is none."""
    try:
        return await engine.read(path, _LINK)
    except PathUnknown:
        return None
    except ObjectTooLong:
        return b""


def _target(link: bytes) -> Digest | None:
    try:
        return Digest.parse(link.decode("ascii", "replace").strip())
    except DigestInvalid:
        return None
