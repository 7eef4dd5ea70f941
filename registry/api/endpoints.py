"""The endpoints of the distribution specification as the OpenAPI page tells them; others answer them.

Pulls are answered before routing, and requests and answers are bytes and headers: so each is described here by a
function that is never called. A test holds the descriptions to what is answered.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from ocispec import mediatypes

PULL, PUSH, LIST, DELETE = "Pull", "Push", "List", "Delete"
TAGS = [
    {"name": PULL, "description": "Manifests and blobs, by tag and digest."},
    {"name": PUSH, "description": "Blobs first, then the manifest that names them."},
    {"name": LIST, "description": "Tags, referrers, repositories."},
    {"name": DELETE, "description": "Refused where `storage.delete.enabled` is false."},
]

described = APIRouter(generate_unique_id_function=lambda route: route.name)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_MANIFEST: dict[str, Any] = {each: {"schema": {"type": "object"}} for each in sorted(mediatypes.MANIFESTS)}
_BLOB: dict[str, Any] = {mediatypes.OCTET_STREAM: _BYTES}

_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_DIGEST = r"(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
NAME: dict[str, Any] = {"type": "string", "pattern": f"^{_COMPONENT}(/{_COMPONENT})*$", "maxLength": 255}
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
_EXAMPLE = f"sha256:{'0' * 64}"

Name = Annotated[str, Path(description="The repository's name.", examples=["team/app"])]
Reference = Annotated[str, Path(description="A tag or a digest.", pattern=f"^({_TAG}|{_DIGEST})$", examples=["1.0"])]
DigestPath = Annotated[str, Path(pattern=f"^{_DIGEST}$", examples=[_EXAMPLE])]
DigestQuery = Annotated[
    str, Query(description="What the content must hash to.", pattern=f"^{_DIGEST}$", examples=[_EXAMPLE])
]
UploadId = Annotated[str, Path(description="As the `Location` of the upload has it.")]
N = Annotated[int | None, Query(description="How many at most.")]
Last = Annotated[str | None, Query(description="Where the page before this one ended.")]


def _answers(status: int, told: str, content: dict[str, Any] | None = None, *headers: str) -> dict[int | str, Any]:
    shown = {name: {"schema": {"type": "string"}} for name in headers}
    return {status: {"description": told, **({"content": content} if content else {}), "headers": shown}}


def _takes(content: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"requestBody": {"content": content, "required": required}}


@described.get("/v2/", tags=[PULL], responses=_answers(200, "Yes."), response_class=Response)
def base() -> None:
    """Whether the registry speaks this protocol (end-1)."""


@described.get(
    "/v2/{name}/blobs/{digest}",
    tags=[PULL],
    responses=_answers(200, "The blob.", _BLOB, "Docker-Content-Digest", "ETag", "Accept-Ranges")
    | _answers(206, "The range that was asked for.", _BLOB, "Content-Range")
    | _answers(304, "As `If-None-Match` tells, the client has it."),
    response_class=Response,
)
def get_blob(name: Name, digest: DigestPath, range: Annotated[str | None, Header()] = None) -> None:  # noqa: A002 - the header's name
    """A blob, or one range of it (end-2)."""


@described.get(
    "/v2/{name}/manifests/{reference}",
    tags=[PULL],
    responses=_answers(200, "The manifest, byte for byte.", _MANIFEST, "Docker-Content-Digest", "ETag")
    | _answers(304, "As `If-None-Match` tells, the client has it."),
    response_class=Response,
)
def get_manifest(name: Name, reference: Reference, accept: Annotated[str | None, Header()] = None) -> None:
    """A manifest or index (end-3).

    A client that asks for a tag and cannot read an index gets the image for linux/amd64 in it.
    """


@described.post(
    "/v2/{name}/blobs/uploads/",
    tags=[PUSH],
    status_code=202,
    responses=_answers(202, "An upload has begun.", None, "Location", "Range")
    | _answers(201, "The blob is in the repository.", None, "Location", "Docker-Content-Digest"),
    openapi_extra=_takes(_BLOB),
    response_class=Response,
)
def begin_upload(
    name: Name,
    digest: Annotated[
        str | None, Query(description="Of the whole blob, which is then the body.", pattern=f"^{_DIGEST}$")
    ] = None,
    mount: Annotated[
        str | None, Query(description="Digest of a blob in another repository.", pattern=f"^{_DIGEST}$")
    ] = None,
    from_: Annotated[str | None, Query(alias="from", description="That repository; any unless told.")] = None,
    algorithm: Annotated[
        str | None, Query(alias="digest-algorithm", description="sha256 unless told.", pattern="^sha(256|512)$")
    ] = None,
) -> None:
    """Begins an upload, takes a whole blob, or mounts one (end-4a, end-4b, end-4c, end-11)."""


@described.patch(
    "/v2/{name}/blobs/uploads/{upload_id}",
    tags=[PUSH],
    status_code=202,
    responses=_answers(202, "The chunk has arrived.", None, "Location", "Range"),
    openapi_extra=_takes(_BLOB),
    response_class=Response,
)
def append_chunk(
    name: Name, upload_id: UploadId, content_range: Annotated[str | None, Header(examples=["0-1023"])] = None
) -> None:
    """Adds a chunk to an upload (end-5)."""


@described.put(
    "/v2/{name}/blobs/uploads/{upload_id}",
    tags=[PUSH],
    status_code=201,
    responses=_answers(201, "The blob is in the repository.", None, "Location", "Docker-Content-Digest"),
    openapi_extra=_takes(_BLOB),
    response_class=Response,
)
def end_upload(name: Name, upload_id: UploadId, digest: DigestQuery) -> None:
    """Adds the last chunk, if any, and makes the upload a blob (end-6)."""


@described.get(
    "/v2/{name}/blobs/uploads/{upload_id}",
    tags=[PUSH],
    status_code=204,
    responses=_answers(204, "How far it has come.", None, "Location", "Range"),
    response_class=Response,
)
def get_upload(name: Name, upload_id: UploadId) -> None:
    """How far an upload has come (end-13)."""


@described.delete(
    "/v2/{name}/blobs/uploads/{upload_id}",
    tags=[PUSH],
    status_code=204,
    responses=_answers(204, "It is gone."),
    response_class=Response,
)
def cancel_upload(name: Name, upload_id: UploadId) -> None:
    """Gives an upload up (end-14)."""


@described.put(
    "/v2/{name}/manifests/{reference}",
    tags=[PUSH],
    status_code=201,
    responses=_answers(201, "It is stored.", None, "Location", "Docker-Content-Digest", "OCI-Subject", "OCI-Tag"),
    openapi_extra=_takes(_MANIFEST, required=True),
    response_class=Response,
)
def put_manifest(
    name: Name,
    reference: Reference,
    tag: Annotated[list[str] | None, Query(description="Further tags that it gets.")] = None,
) -> None:
    """Stores a manifest or index, of at most 4 MiB (end-7a, end-7b)."""


@described.get(
    "/v2/{name}/tags/list",
    tags=[LIST],
    responses=_answers(200, "A page of tags.", {"application/json": {"schema": {"type": "object"}}}, "Link"),
    response_class=Response,
)
def list_tags(name: Name, n: N = None, last: Last = None) -> None:
    """Tags in lexical order (end-8a, end-8b)."""


@described.get(
    "/v2/{name}/referrers/{digest}",
    tags=[LIST],
    responses=_answers(200, "An index.", {mediatypes.OCI_INDEX: {"schema": {"type": "object"}}}, "OCI-Filters-Applied"),
    response_class=Response,
)
def list_referrers(name: Name, digest: DigestPath, artifactType: str | None = None) -> None:  # noqa: N803 - the specification's name
    """Manifests whose subject this one is (end-12a, end-12b)."""


@described.get(
    "/v2/_catalog",
    tags=[LIST],
    responses=_answers(200, "A page of names.", {"application/json": {"schema": {"type": "object"}}}, "Link"),
    response_class=Response,
)
def list_repositories(n: N = None, last: Last = None) -> None:
    """Repositories in lexical order (Distribution's catalogue)."""


@described.delete(
    "/v2/{name}/manifests/{reference}",
    tags=[DELETE],
    status_code=202,
    responses=_answers(202, "It is gone."),
    response_class=Response,
)
def delete_manifest(name: Name, reference: Reference) -> None:
    """Deletes a manifest with all its tags, or a tag alone (end-9)."""


@described.delete(
    "/v2/{name}/blobs/{digest}",
    tags=[DELETE],
    status_code=202,
    responses=_answers(202, "It is gone from this repository."),
    response_class=Response,
)
def delete_blob(name: Name, digest: DigestPath) -> None:
    """Deletes a blob of a repository (end-10)."""
