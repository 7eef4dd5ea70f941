"""Referrers: manifests that name another one as their subject (distribution-spec, "Listing Referrers").

A registry without the referrers API has them in an index under the tag `<algorithm>-<hex>` of their subject, which
whoever pushes a referrer there keeps ("Referrers Tag Schema").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from client.registries.api import Api, counted, expect, within
from client.registries.listing import MAX_PAGE, pages
from client.session import Session
from client.wire.exchange import read
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid, ManifestUnknown, NameUnknown, RegistryError, ResponseInvalid
from ocispec.manifest import Manifest
from ocispec.reference import Reference, Tag


async def referrers(api: Api, subject: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
    """Returns what refers to a manifest, each once (end-12); none where nothing does.

    Args:
        api: the endpoint.
        subject: the manifest.
        artifact_type: only those of this type; registries need not filter.

    Raises:
        ResponseInvalid: the answer is no index, or its pages have no end.
        LayerhouseError: as the registry answers.
    """
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    path = f"{api.endpoint.repository}/referrers/{subject}{query}"
    found: dict[Digest, Descriptor] = {}
    try:
        async for raw in pages(api, path, ManifestUnknown):
            found |= {each.digest: each for each in _index(raw).manifests}
    except RegistryError as error:
        if not _unsupported(error):
            raise
        _, index = await _kept(api, subject)
        found = {each.digest: each for each in index.manifests} if index else {}
    return tuple(each for each in found.values() if artifact_type in (None, each.artifact_type))


async def of(session: Session, reference: Reference, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
    """Returns what refers to the image that a name stands for; see `referrers`."""
    remote = session.remote(reference)
    digest = reference.digest or await remote.head(reference.target)
    if digest is None:
        digest, _ = await remote.manifest(reference.target)
    with within(str(reference)):
        return await referrers((await remote.endpoints())[-1], digest, artifact_type)


async def enter(api: Api, subject: Digest, referrer: Descriptor) -> None:
    """Enters a referrer in the index under its subject's tag, unless it stands there.

    Two clients that do so at once may lose one entry: the specification has nothing against it.

    Raises:
        LayerhouseError: as the registry answers.
    """
    path, index = await _kept(api, subject)
    entries = index.manifests if index else ()
    if referrer.digest in {each.digest for each in entries}:
        return
    members = {**_members(index), "manifests": [each.to_json() for each in (*entries, referrer)]}
    raw = json.dumps(members, separators=(",", ":")).encode()
    headers = {"Content-Type": mediatypes.OCI_INDEX}
    async with api.send("PUT", path, headers=headers, content=raw, again=True) as response:
        await expect(response, 201, NameUnknown)


def tag_of(subject: Digest) -> Tag:
    """Returns the tag under which a registry without the API has the referrers of a manifest."""
    return Tag.parse(f"{subject.algorithm[:32]}-{subject.hex[:64]}")


async def _kept(api: Api, subject: Digest) -> tuple[str, Manifest | None]:
    """Returns the path of the index under the subject's tag, and the index; None where there is none."""
    path = f"{api.endpoint.repository}/manifests/{tag_of(subject)}"
    with suppress(ManifestUnknown, NameUnknown):
        async with api.send("GET", path, headers={"Accept": mediatypes.OCI_INDEX}) as response:
            await expect(response, 200, ManifestUnknown)
            raw = await read(counted(response), MAX_PAGE)
        if raw is None:
            raise ResponseInvalid(f"the index of referrers is longer than {MAX_PAGE} bytes")
        return path, _index(raw)
    return path, None


def _members(index: Manifest | None) -> Mapping[str, Any]:
    new = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX}
    return dict(json.loads(index.raw)) if index else new


def _index(raw: bytes) -> Manifest:
    try:
        index = Manifest.parse(raw)
    except ManifestInvalid as error:
        raise ResponseInvalid(f"the referrers are no index: {error.message}") from error
    if not index.is_index:
        raise ResponseInvalid(f"the referrers are no index, but {index.media_type}")
    return index


def _unsupported(error: RegistryError) -> bool:
    # A registry that knows the API answers 200 to any digest; what others say to an unknown path differs.
    return error.status in (404, 405)
