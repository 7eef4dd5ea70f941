"""Tags of a hosted repository."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.errors import ManifestUnknown, NameUnknown, PathUnknown, TagInvalid
from ocispec.reference import RepositoryName, Tag
from storage import links, paths
from storage.engine import Engine
from storage.names import names
from storage.repository import Page, TagLink
from storage.threads import paced


class HostedTags:
    """Implements `storage.repository.Tags`."""

    def __init__(self, engine: Engine, name: RepositoryName) -> None:
        self._engine = engine
        self._name = name

    async def resolve(self, tag: Tag) -> Digest | None:
        return await links.read(self._engine, paths.tag_current_link(self._name, tag))

    async def point(self, tag: Tag, digest: Digest) -> None:
        """Points the tag at a manifest that is durable already."""
        await links.write(self._engine, paths.tag_index_link(self._name, tag, digest), digest)
        await links.write(self._engine, paths.tag_current_link(self._name, tag), digest)

    async def page(self, after: str, limit: int) -> Page:
        found: list[str] = []
        async for name in paced(names(self._engine, paths.tags(self._name), after)):
            # A push that a crash cut short left a folder without a link: no tag.
            if (tag := _tag(name)) and await self.resolve(tag):
                found.append(tag)
            if len(found) > limit:
                break
        if not found and not await self._engine.children(paths.manifests(self._name), limit=1):
            raise NameUnknown(detail={"name": self._name})
        return Page.of(found, limit)

    async def link(self, tag: Tag) -> TagLink:
        digest = await self.resolve(tag)
        if digest is None:
            raise _unknown(tag)
        try:
            return TagLink(digest, (await self._engine.stat(paths.tag_current_link(self._name, tag))).modified)
        except PathUnknown:
            raise _unknown(tag) from None

    async def delete(self, tag: Tag) -> None:
        if await self.resolve(tag) is None:
            raise _unknown(tag)
        await self._engine.delete(paths.tag(self._name, tag))

    async def delete_pointing_at(self, digest: Digest) -> tuple[Tag, ...]:
        """Removes every tag whose current manifest is `digest`, and returns them."""
        removed: list[Tag] = []
        async for name in paced(await self._engine.children(paths.tags(self._name))):
            tag = _tag(name)
            if tag and await self.resolve(tag) == digest:
                await self._engine.delete(paths.tag(self._name, tag))
                removed.append(tag)
        return tuple(removed)


def _unknown(tag: Tag) -> ManifestUnknown:
    return ManifestUnknown(detail={"tag": tag})


def _tag(name: str) -> Tag | None:
    try:
        return Tag.parse(name)
    except TagInvalid:
        return None
