"""Pushing blobs (end-4, end-5, end-6, end-11, end-13, end-14), and forgetting them (end-10)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from ocispec.digest import CANONICAL, Digest, new_hash
from ocispec.errors import (
    BlobTooLarge,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    GrammarError,
    RangeInvalid,
    SizeInvalid,
)
from ocispec.headers import ChunkRange
from ocispec.reference import RepositoryName
from registry import context
from registry.api.dependencies import READ, TheEvents, TheRepository
from registry.api.guard import UPLOADS
from registry.api.urls import location
from registry.auth.caller import Action
from registry.events import Target, What
from storage.repository import Repository

router = APIRouter()
_UPLOADS = "/v2/{name:path}/blobs/uploads"
_UPLOAD = f"{_UPLOADS}/{{upload_id}}"


@router.post(_UPLOADS)
@router.post(f"{_UPLOADS}/")
async def begin(
    repository: TheRepository,
    events: TheEvents,
    request: Request,
    *,
    digest: str | None = None,
    mount: str | None = None,
    source: Annotated[str | None, Query(alias="from")] = None,
    algorithm: Annotated[str, Query(alias="digest-algorithm")] = CANONICAL,
) -> Response:
    """end-4a: begins an upload; end-4b: takes the whole blob; end-4c: hashed as asked; end-11: mounts."""
    if mount is not None:
        wanted, origin = Digest.parse(mount), RepositoryName.parse(source) if source is not None else None
        caller = context.caller(request.scope)
        if await repository.blobs.mount(wanted, origin, lambda name: caller.may(Action.PULL, name)):
            if events.wanted:
                size = await repository.blobs.size(wanted)
                await events.tell(What.MOUNT, request.scope, Target(repository.name, wanted, size=size, source=origin))
            return _created(request, repository, wanted)
    new_hash(algorithm)
    if digest is None:
        return _accepted(request, repository, await repository.uploads.begin(algorithm), 0)
    whole = Digest.parse(digest)
    size = await _commit_at_once(repository, whole, request)
    await events.tell(What.PUSH, request.scope, Target(repository.name, whole, size=size))
    return _created(request, repository, whole)


@router.patch(_UPLOAD)
async def chunk(repository: TheRepository, request: Request, upload_id: str) -> Response:
    """end-5: adds a chunk."""
    found = _id(upload_id)
    with _located(request, repository, found):
        size = await repository.uploads.append(found, _body(request, repository, found), _span(request))
    return _accepted(request, repository, found, size)


@router.put(_UPLOAD)
async def commit(
    repository: TheRepository, events: TheEvents, request: Request, upload_id: str, digest: str | None = None
) -> Response:
    """end-6: adds the last chunk, if any, and makes the upload a blob."""
    found = _id(upload_id)
    if digest is None:
        raise DigestInvalid("the query parameter digest is missing")
    whole = Digest.parse(digest)
    with _located(request, repository, found):
        body = _body(request, repository, found)
        size = await repository.uploads.commit(found, whole, body, _span(request))
    await events.tell(What.PUSH, request.scope, Target(repository.name, whole, size=size))
    return _created(request, repository, whole)


@router.api_route(_UPLOAD, methods=READ)
async def status(repository: TheRepository, request: Request, upload_id: str) -> Response:
    """end-13: how far the upload has come."""
    found = _id(upload_id)
    answer = _accepted(request, repository, found, await repository.uploads.size(found))
    answer.status_code = 204
    return answer


@router.delete(_UPLOAD, tags=[UPLOADS])
async def cancel(repository: TheRepository, upload_id: str) -> Response:
    """end-14: gives the upload up."""
    await repository.uploads.cancel(_id(upload_id))
    return Response(status_code=204)


@router.delete("/v2/{name:path}/blobs/{digest}")
async def delete(repository: TheRepository, events: TheEvents, request: Request, digest: str) -> Response:
    """end-10: forgets a blob."""
    unwanted = Digest.parse(digest)
    await repository.blobs.delete(unwanted)
    await events.tell(What.DELETE, request.scope, Target(repository.name, unwanted))
    return Response(status_code=202)


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BlobUploadUnknown(detail={"upload": text[:80]}) from None


def _span(request: Request) -> ChunkRange | None:
    header = request.headers.get("content-range")
    if header is None:
        return None
    try:
        span = ChunkRange.parse(header)
    except GrammarError as error:
        raise BlobUploadInvalid(error.message) from error
    length = request.headers.get("content-length")
    if length is not None and length != str(span.length):
        raise SizeInvalid(f"Content-Length is {length}, Content-Range {header} has {span.length} bytes")
    return span


async def _commit_at_once(repository: Repository, digest: Digest, request: Request) -> int:
    upload_id = await repository.uploads.begin(digest.algorithm)
    try:
        body = _body(request, repository, upload_id)
        return await repository.uploads.commit(upload_id, digest, body, _span(request))
    except Exception:
        # Nobody was told of this upload: nobody will go on with it.
        with suppress(BlobUploadUnknown):
            await repository.uploads.cancel(upload_id)
        raise


async def _body(request: Request, repository: Repository, upload_id: UUID) -> AsyncIterator[bytes]:
    """The pieces of a body.

    Raises:
        BlobTooLarge: the upload gets longer than a blob may be; before the body is asked for, where its length is told.
    """
    most, length = request.app.state.settings.layerhouse.limits.blobsize, request.headers.get("content-length")
    size = await repository.uploads.size(upload_id) if most else 0
    if most and length and length.isdecimal():
        _require_small(size + int(length[:19]), most)
    async for piece in request.stream():
        if piece:
            size += len(piece)
            _require_small(size, most)
            yield piece


def _require_small(size: int, most: int) -> None:
    if size > most > 0:
        raise BlobTooLarge(f"the blob is longer than {most} bytes")


def _location(request: Request, repository: Repository, upload_id: UUID) -> str:
    return location(request, f"/v2/{repository.name}/blobs/uploads/{upload_id}")


def _accepted(request: Request, repository: Repository, upload_id: UUID, size: int) -> Response:
    headers = {"Location": _location(request, repository, upload_id), "Range": str(ChunkRange.of_size(size))}
    return Response(status_code=202, headers={**headers, "Docker-Upload-UUID": str(upload_id)})


def _created(request: Request, repository: Repository, digest: Digest) -> Response:
    blob = location(request, f"/v2/{repository.name}/blobs/{digest}")
    return Response(status_code=201, headers={"Location": blob, "Docker-Content-Digest": str(digest)})


@contextmanager
def _located(request: Request, repository: Repository, upload_id: UUID) -> Iterator[None]:
    """A client that is out of step learns where to go on."""
    try:
        yield
    except RangeInvalid as error:
        error.headers["Location"] = _location(request, repository, upload_id)
        raise
