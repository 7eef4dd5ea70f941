"""Moving images into a registry, from wherever they are (distribution-spec, "Push").

Blobs go side by side, then each manifest after what it names, the tag last. Bytes only pass through: nothing is kept on
disk, and no more in memory than a piece for each blob on its way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from client.progress import BlobSent, LayerProgress, LayerStarted, Pushed, Report, Resolved, Warned
from client.registries.api import Api, counted, expect, within
from client.registries.referring import enter, referrers
from client.registries.remote import Remote
from client.registries.uploading import How, Upload
from client.session import Session, entered
from client.tasks import side_by_side
from client.transfers.content import Node, descend
from client.transfers.pulling import as_platform, as_reference
from client.transfers.resolving import RemoteSource, choose
from client.transfers.supply import Source, beyond
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestInvalid, DigestMismatch, LayerhouseError, NameUnknown, ResponseInvalid
from ocispec.headers import ByteRange
from ocispec.mediatypes import is_foreign
from ocispec.platform import Platform
from ocispec.reference import Reference, RepositoryName, Tag

MAX_REFERRERS = 10_000

# Tells which other repositories of the target's registry may have a blob.
Mounts: TypeAlias = Callable[[Digest], Sequence[RepositoryName]]


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be moved.

    Attributes:
        source: gives its blobs.
        nodes: manifests and indexes, each after those it names; the last is what the name shall stand for.
        referrers: manifests that refer to those, or to each other, each after its subject.
        mounts: tells from where a blob may be mounted.
    """

    source: Source
    nodes: tuple[Node, ...]
    referrers: tuple[Node, ...] = ()
    mounts: Mounts = lambda _: ()

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @property
    def blobs(self) -> list[Descriptor]:
        """Configs and layers, each once."""
        every = (*self.nodes, *self.referrers)
        return list({each.digest: each for node in every for each in node.manifest.blobs}.values())


class RemoteContent:
    """`Source` of a repository at a registry."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def read(self, wanted: Descriptor) -> bytes:
        """Returns a manifest, for `descend`."""
        return (await self._remote.manifest(wanted.digest))[1].raw

    @asynccontextmanager
    async def stream(self, wanted: Descriptor, offset: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        span = ByteRange(offset, wanted.size - 1) if offset else None
        failed: LayerhouseError | None = None
        async with (
            self._remote.part(wanted.digest, span, again=True) as body,
            aclosing(counted(body.response)) as pieces,
            aclosing(beyond(pieces, offset - body.offset)) as rest,
            aclosing(_placed(rest, self._remote.place(wanted.digest))) as named,
        ):
            try:
                yield named
            except LayerhouseError as error:
                # What whoever reads it met must not be told as if it happened here.
                failed = error
        if failed:
            raise failed


async def _placed(pieces: AsyncIterator[bytes], place: str) -> AsyncGenerator[bytes, None]:
    with within(place):
        async for piece in pieces:
            yield piece


async def copy(
    source: str | Reference,
    target: str | Reference,
    *,
    platform: str | Platform | None = None,
    all_platforms: bool = False,
    with_referrers: bool = False,
    session: Session | None = None,
    report: Report | None = None,
) -> Pushed:
    """Copies an image between repositories of one registry or two; cancelled, it leaves the target's tag as it was.

    Args:
        source: the image.
        target: the name that it gets.
        platform: which image, where the name stands for several; the one for this machine unless told.
        all_platforms: copy all that the index names, and the index.
        with_referrers: copy signatures, SBOMs and whatever else refers to the image, too.
        session: as `client.pull`.
        report: as `client.pull`.

    Returns:
        The last event.

    Raises:
        LayerhouseError: the tree in `ocispec.errors`; the message tells host, image, digest and cause in one line.
    """
    names, on = (as_reference(source), as_reference(target)), as_platform(platform)
    async with entered(session, report) as inside:
        return await copy_in(inside, *names, on, all_platforms=all_platforms, with_referrers=with_referrers)


async def copy_in(
    session: Session,
    source: Reference,
    target: Reference,
    platform: Platform | None = None,
    *,
    all_platforms: bool = False,
    with_referrers: bool = False,
) -> Pushed:
    """Copies within a session, so that several images share its connections; see `copy`."""
    load = await plan(session, source, platform, all_platforms=all_platforms)
    if with_referrers:
        load = await referred(session, source, load)
    if source.host == target.host:
        load = replace(load, mounts=lambda _: (source.repository,))
    return await send(session, load, target)


async def plan(session: Session, source: Reference, platform: Platform | None, *, all_platforms: bool) -> Load:
    """Finds out what a name at a registry stands for.

    Raises:
        PlatformUnknown: no image runs on the platform.
        LayerhouseError: see `Remote.manifest`.
    """
    remote = session.remote(source)
    content = RemoteContent(remote)
    if all_platforms:
        digest, manifest = await remote.manifest(source.target)
        nodes = await descend(content, manifest.descriptor(digest))
        chosen = None
    else:
        found = await choose(source, RemoteSource(remote), platform)
        nodes, chosen = [found.image], found.platform
        if found.image is not found.root:
            session.report(Warned(source, f"{source}: copying {alone(chosen)}; --all-platforms copies all"))
    load = Load(content, tuple(nodes))
    layers = {each.digest for node in nodes for each in node.manifest.layers}
    size = sum(each.size for each in load.blobs)
    session.report(Resolved(source, load.root.descriptor.digest, chosen, len(layers), size))
    return load


async def referred(session: Session, source: Reference, load: Load) -> Load:
    """Adds what refers to the manifests of a load, and what refers to that; see `client.registries.referring`.

    Raises:
        ResponseInvalid: they are more than `MAX_REFERRERS`.
    """
    remote = session.remote(source)
    content, api = RemoteContent(remote), (await remote.endpoints())[-1]
    known = {node.descriptor.digest for node in load.nodes}
    waiting, found = list(known), list[Node]()
    while waiting:
        subject = waiting.pop(0)
        with within(f"{source}: referrers of {subject}"):
            entries = await referrers(api, subject)
        for each in entries:
            for node in await descend(content, each) if each.digest not in known else ():
                if node.descriptor.digest not in known:
                    known.add(node.descriptor.digest)
                    found.append(node)
                    waiting.append(node.descriptor.digest)
        if len(found) > MAX_REFERRERS:
            raise ResponseInvalid(f"{source}: more than {MAX_REFERRERS} manifests refer to it")
    return replace(load, referrers=tuple(found))


async def send(session: Session, load: Load, target: Reference) -> Pushed:
    """Moves a load into a repository; what is there is not sent again.

    Cancelled or failed, it leaves the tag as it was, and no upload begun.

    Raises:
        DigestInvalid: the target names another digest than what is sent.
        DigestMismatch: the source's content is not what a digest names.
        LayerhouseError: as the registry answers, or the source fails; naming image, digest and cause.
    """
    root = load.root.descriptor.digest
    if target.digest not in (None, root):
        raise DigestInvalid(f"{target}: what is sent has another digest, {root}")
    goal = Goal(session, target, await session.remote(target, "pull", "push").pushing())
    sent = 0

    async def one(blob: Descriptor) -> None:
        nonlocal sent
        went = await goal.bring(blob, load)
        sent += went

    await side_by_side(one, load.blobs, session.jobs)
    for node in load.nodes[:-1]:
        await goal.put(node.descriptor.digest, node)
    await goal.put(target.tag or root, load.root)
    for node in load.referrers:
        await goal.put(node.descriptor.digest, node)
    pushed = Pushed(target, root, sent, sum(each.size for each in load.blobs))
    session.report(pushed)
    return pushed


def alone(platform: Platform | None) -> str:
    """How messages call one image of an index."""
    return f"{f'the image for {platform}' if platform else 'one image'} alone, without the index that names it"


class Goal:
    """The repository that a load goes to.

    Args:
        session: bounds what runs at once, and hears of every blob.
        reference: the name.
        api: the endpoint, allowed to push.
    """

    def __init__(self, session: Session, reference: Reference, api: Api) -> None:
        self._session = session
        self._reference = reference
        self._api = api

    async def bring(self, blob: Descriptor, load: Load) -> int:
        """Brings one blob; returns how many bytes went out."""
        if is_foreign(blob.media_type) and blob.urls:
            where = f"it lies at {blob.urls[0][:200]!r}"
            self._session.report(Warned(self._reference, f"{self._reference}: left out {blob.digest}, {where}"))
            return 0
        reference, report = self._reference, self._session.report

        def told(came: int) -> None:
            report(LayerProgress(reference, blob.digest, came, blob.size))

        upload = Upload(self._api, self._session.patience, blob, load.source, told)
        async with self._session.slots.one(reference.host):
            with within(self._place(blob.digest)):
                how = await self._sent(upload, blob, load)
        report(BlobSent(reference, blob.digest, blob.size, how))
        return blob.size if how is How.UPLOADED else 0

    async def _sent(self, upload: Upload, blob: Descriptor, load: Load) -> How:
        if await upload.exists():
            return How.EXISTS
        self._session.report(LayerStarted(self._reference, blob.digest, blob.size))
        return await upload.run([each for each in load.mounts(blob.digest) if each != self._api.endpoint.repository])

    async def put(self, name: Tag | Digest, node: Node) -> None:
        """Stores a manifest under a tag or its digest (end-7).

        Where it refers to another one and the registry keeps no referrers, it is entered in the index that does.
        """
        manifest, digest = node.manifest, node.descriptor.digest
        headers, path = {"Content-Type": manifest.media_type}, f"{self._api.endpoint.repository}/manifests/{name}"
        with within(self._place(name)):
            async with self._api.send("PUT", path, headers=headers, content=manifest.raw, again=True) as response:
                await expect(response, 201, NameUnknown)
                stored, listed = (response.headers.get(each) for each in ("docker-content-digest", "oci-subject"))
            if stored and stored != str(digest) and digest.algorithm == stored.partition(":")[0]:
                raise DigestMismatch(f"sent {digest}, the registry says that it stored {stored[:200]!r}")
            if manifest.subject and not listed:
                await enter(self._api, manifest.subject.digest, manifest.descriptor(digest))

    def _place(self, name: Tag | Digest) -> str:
        """How messages call a manifest or blob."""
        known = (self._reference.tag, self._reference.digest)
        return str(self._reference) if name in known else f"{self._reference}: {name}"
