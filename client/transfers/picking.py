"""Which images under a name are sent: an index that is all there, or one image of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from client.transfers.content import MAX_DEPTH, Manifests, Node
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import CacheError, PlatformUnknown
from ocispec.manifest import ImageConfig, Manifest
from ocispec.mediatypes import IMAGE_CONFIGS, MANIFESTS, is_foreign
from ocispec.platform import Platform, best

# Returns those of some descriptors whose content is not there.
Missing: TypeAlias = Callable[[Iterable[Descriptor]], Awaitable[list[Descriptor]]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images of an index are wanted.

    Attributes:
        platform: the one for this platform alone.
        all_platforms: everything that the index names, and the index; without either, that where it is all there,
            else the one image that is.
    """

    platform: Platform | None = None
    all_platforms: bool = False


@dataclass(frozen=True, slots=True)
class Picked:
    """What is sent.

    Attributes:
        nodes: manifests and indexes, each after those it names; the last is what the name shall stand for.
        platform: of the one image that was chosen; None where it was not a choice.
        alone: whether it goes without the index that names it.
    """

    nodes: tuple[Node, ...]
    platform: Platform | None = None
    alone: bool = False


@dataclass(slots=True)
class _Survey:
    nodes: dict[Digest, Node] = field(default_factory=dict)
    images: dict[Digest, Platform | None] = field(default_factory=dict)
    absent: dict[Digest, Descriptor] = field(default_factory=dict)


async def pick(name: str, content: Manifests, missing: Missing, top: Descriptor, wanted: Wanted) -> Picked:
    """Chooses among what is there.

    Args:
        name: how messages call it.
        content: gives manifests and configs.
        missing: tells what is not there.
        top: what the name stands for.
        wanted: which images.

    Raises:
        CacheError: what is wanted is not whole, or it is not clear which of several images is.
        PlatformUnknown: no image that is whole runs on the platform; tells which there are.
        LayerhouseError: whatever the content raises.
    """
    survey = _Survey()
    await _survey(content, missing, top, 0, survey)
    nodes = tuple(survey.nodes.values())
    if wanted.platform:
        return _for_platform(name, survey, wanted.platform)
    if not survey.absent:
        return Picked(nodes)
    lacking = next(iter(survey.absent.values()))
    if wanted.all_platforms or not survey.images or not nodes[-1].manifest.is_index:
        raise CacheError(f"{name} is not whole, {_called(lacking)} is missing: pull it again{_hint(nodes)}")
    if len(survey.images) > 1:
        known = ", ".join(str(each) for each in survey.images.values() if each)
        raise CacheError(f"{name}: not all that its index names is here; choose with --platform one of {known}")
    digest, platform = next(iter(survey.images.items()))
    return Picked((survey.nodes[digest],), platform, alone=True)


async def _survey(content: Manifests, missing: Missing, top: Descriptor, depth: int, found: _Survey) -> bool:
    """Notes what is there below a manifest; returns whether all of it is."""
    if depth > MAX_DEPTH:
        raise CacheError(f"{top.digest}: indexes lie more than {MAX_DEPTH} deep in each other")
    manifest = Manifest.parse(await content.read(top), top.media_type)
    absent = {each.digest: each for each in await missing(each for each in manifest.blobs if not _elsewhere(each))}
    for child in manifest.manifests:
        if child.digest in found.nodes or child.digest in found.absent:
            continue
        if child.media_type not in MANIFESTS or await missing([child]):
            absent[child.digest] = child
        else:
            await _survey(content, missing, child, depth + 1, found)
    found.absent |= absent
    found.nodes[top.digest] = Node(top, manifest)
    if not manifest.is_index and not absent:
        await _note(content, top, manifest, found)
    return not absent


async def _note(content: Manifests, top: Descriptor, manifest: Manifest, found: _Survey) -> None:
    platform = top.platform
    if manifest.config and manifest.config.media_type in IMAGE_CONFIGS and not platform:
        platform = ImageConfig.parse(await content.read(manifest.config)).platform
    # An attestation is no image: buildkit marks it with a platform that nothing has.
    if not (platform and platform.os == "unknown"):
        found.images[top.digest] = platform


def _for_platform(name: str, survey: _Survey, wanted: Platform) -> Picked:
    named = [(platform, digest) for digest, platform in survey.images.items() if platform]
    digest = best(wanted, named)
    if digest is None:
        there = ", ".join(str(each) for each, _ in named) or "none"
        raise PlatformUnknown(f"{name}: no image for {wanted} here; there are: {there}")
    return Picked((survey.nodes[digest],), survey.images[digest], alone=len(survey.nodes) > 1)


def _elsewhere(blob: Descriptor) -> bool:
    return is_foreign(blob.media_type) and bool(blob.urls)


def _called(lacking: Descriptor) -> str:
    return f"{lacking.digest}{f' for {lacking.platform}' if lacking.platform else ''}"


def _hint(nodes: tuple[Node, ...]) -> str:
    return " with --all-platforms" if nodes[-1].manifest.is_index else ""
