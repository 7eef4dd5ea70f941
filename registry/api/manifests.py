"""Pushing and deleting manifests and tags (end-7, end-9)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ocispec.digest import Digest
from ocispec.errors import ManifestTooLarge, TagInvalid
from ocispec.reference import Tag, parse_tag_or_digest
from registry.api.dependencies import TheEvents, TheRepository
from registry.api.urls import location
from registry.events import Target, What
from storage.repository import MAX_MANIFEST

MAX_TAGS = 100
router = APIRouter()


@router.put("/v2/{name:path}/manifests/{reference}")
async def put(
    repository: TheRepository,
    events: TheEvents,
    request: Request,
    reference: str,
    tag: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """end-7a, end-7b: a manifest by tag or digest, with further tags."""
    if len(tag or ()) > MAX_TAGS:
        raise TagInvalid(f"{len(tag or ())} tags in one request: at most {MAX_TAGS}")
    tags = [Tag.parse(each) for each in tag or ()]
    target, raw = parse_tag_or_digest(reference), await _body(request)
    stored, subject = await repository.manifests.put(target, raw, request.headers.get("content-type"), tags)
    for each in tags if isinstance(target, Digest) else (target, *tags):
        await events.tell(What.PUSH, request.scope, Target(repository.name, stored.digest, each, stored))
    if isinstance(target, Digest) and not tags:
        await events.tell(What.PUSH, request.scope, Target(repository.name, stored.digest, None, stored))
    answer = Response(status_code=201)
    answer.headers["Location"] = location(request, f"/v2/{repository.name}/manifests/{stored.digest}")
    answer.headers["Docker-Content-Digest"] = str(stored.digest)
    if subject:
        answer.headers["OCI-Subject"] = str(subject)
    for each in tags:
        answer.headers.append("OCI-Tag", each)
    return answer


@router.delete("/v2/{name:path}/manifests/{reference}")
async def delete(repository: TheRepository, events: TheEvents, request: Request, reference: str) -> Response:
    """end-9: a manifest by digest, or a tag alone."""
    target = parse_tag_or_digest(reference)
    if isinstance(target, Tag):
        await repository.tags.delete(target)
        await events.tell(What.DELETE, request.scope, Target(repository.name, tag=target))
    else:
        tags = await repository.manifests.delete(target)
        await events.tell(What.DELETE, request.scope, Target(repository.name, target))
        for each in tags:
            await events.tell(What.DELETE, request.scope, Target(repository.name, tag=each))
    return Response(status_code=202)


async def _body(request: Request) -> bytes:
    length, body = request.headers.get("content-length"), bytearray()
    # Refused before it is sent, where the client waits for 100 Continue.
    _require_small(int(length[:19]) if length and length.isdecimal() else 0)
    async for chunk in request.stream():
        body += chunk
        _require_small(len(body))
    return bytes(body)


def _require_small(size: int) -> None:
    if size > MAX_MANIFEST:
        raise ManifestTooLarge(f"the manifest is longer than {MAX_MANIFEST} bytes")
