"""The one tree of errors.

LayerhouseError
├── RegistryError            travels as the specification's JSON envelope (distribution-spec, "Error Codes")
│   ├── BlobUnknown          404 BLOB_UNKNOWN
│   ├── BlobUploadInvalid    400 BLOB_UPLOAD_INVALID
│   │   └── UploadBusy       409
│   ├── BlobUploadUnknown    404 BLOB_UPLOAD_UNKNOWN
│   ├── DigestInvalid        400 DIGEST_INVALID
│   ├── ManifestBlobUnknown  404 MANIFEST_BLOB_UNKNOWN
│   ├── ManifestInvalid      400 MANIFEST_INVALID
│   │   └── ManifestTooLarge 413
│   ├── ManifestUnknown      404 MANIFEST_UNKNOWN
│   ├── NameInvalid          400 NAME_INVALID
│   ├── NameUnknown          404 NAME_UNKNOWN
│   ├── PageSizeInvalid      400 PAGINATION_NUMBER_INVALID
│   ├── RangeInvalid         416 RANGE_INVALID
│   ├── SizeInvalid          400 SIZE_INVALID
│   │   └── BlobTooLarge     413
│   ├── TagInvalid           400 TAG_INVALID
│   ├── Unauthorized         401 UNAUTHORIZED
│   ├── Denied               403 DENIED
│   ├── Unsupported          405 UNSUPPORTED
│   ├── TooManyRequests      429 TOOMANYREQUESTS
│   ├── Unavailable          503 UNAVAILABLE
│   └── UnknownError         500 UNKNOWN
│       └── RequestInvalid   400
├── GrammarError             a value that is none: media type, platform, header, descriptor
├── StorageError             the place where bytes rest
│   ├── PathUnknown          nothing at that path
│   ├── StorageFull          no space is left
│   └── ObjectTooLong        longer than what is asked for can be
└── TransferError            met by a client on its way
    ├── HostUnreachable      no connection, or it broke and stayed broken
    │   └── NoConnection     none could be made: no such name, no listener, no trust
    ├── ResponseInvalid      the registry answered outside the specification
    ├── DigestMismatch       the bytes are not those the digest names
    ├── ContentTruncated     fewer bytes than promised
    ├── PlatformUnknown      an index without an image for the platform
    ├── ConfigurationError   a file or option that tells how hosts are reached is wrong
    ├── CredentialsError     credentials cannot be read, asked for or kept
    ├── ArchiveInvalid       a file that is no image archive, or a lock file that is none
    ├── LayerInvalid         a layer that cannot, or must not, be unpacked
    └── CacheError           the local cache cannot be read or written
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class LayerhouseError(Exception):
    """Root of the tree.

    Attributes:
        code: upper-case identifier; the specification's for a `RegistryError`.
        status: HTTP status a registry answers with.
        message: one line for people, naming what was wrong and what was expected.
        detail: JSON value for machines, or None.
        headers: HTTP headers that belong to the answer (`Range`, `Retry-After`, …).
    """

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    summary: ClassVar[str] = "unknown error"

    def __init__(
        self, message: str | None = None, *, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.message = message or self.summary
        self.detail = detail
        self.headers = dict(headers or {})
        super().__init__(self.message)


class RegistryError(LayerhouseError):
    """An error with a code of the distribution specification; one entry of its `errors` list."""

    def to_json(self) -> dict[str, Any]:
        entry = {"code": self.code, "message": self.message}
        return entry if self.detail is None else {**entry, "detail": self.detail}


class BlobUnknown(RegistryError):
    code, status, summary = "BLOB_UNKNOWN", 404, "blob unknown to registry"


class BlobUploadInvalid(RegistryError):
    code, status, summary = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"


class UploadBusy(BlobUploadInvalid):
    status, summary = 409, "another request is writing to this upload"


class BlobUploadUnknown(RegistryError):
    code, status, summary = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"


class DigestInvalid(RegistryError):
    code, status, summary = "DIGEST_INVALID", 400, "digest invalid, or it did not match the uploaded content"


class ManifestBlobUnknown(RegistryError):
    code, status, summary = "MANIFEST_BLOB_UNKNOWN", 404, "manifest references a blob unknown to registry"


class ManifestInvalid(RegistryError):
    code, status, summary = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestTooLarge(ManifestInvalid):
    status, summary = 413, "manifest too large"


class ManifestUnknown(RegistryError):
    code, status, summary = "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"


class NameInvalid(RegistryError):
    code, status, summary = "NAME_INVALID", 400, "invalid repository name"


class NameUnknown(RegistryError):
    code, status, summary = "NAME_UNKNOWN", 404, "repository name not known to registry"


class PageSizeInvalid(RegistryError):
    code, status, summary = "PAGINATION_NUMBER_INVALID", 400, "n must be a whole number of at least 0"


class RangeInvalid(RegistryError):
    code, status, summary = "RANGE_INVALID", 416, "range not satisfiable"


class SizeInvalid(RegistryError):
    code, status, summary = "SIZE_INVALID", 400, "provided length did not match content length"


class BlobTooLarge(SizeInvalid):
    status, summary = 413, "blob too large"


class TagInvalid(RegistryError):
    code, status, summary = "TAG_INVALID", 400, "invalid tag"


class Unauthorized(RegistryError):
    code, status, summary = "UNAUTHORIZED", 401, "authentication required"


class Denied(RegistryError):
    code, status, summary = "DENIED", 403, "requested access to the resource is denied"


class Unsupported(RegistryError):
    code, status, summary = "UNSUPPORTED", 405, "the operation is unsupported"


class TooManyRequests(RegistryError):
    code, status, summary = "TOOMANYREQUESTS", 429, "too many requests"


class Unavailable(RegistryError):
    code, status, summary = "UNAVAILABLE", 503, "service unavailable"


class UnknownError(RegistryError):
    """The registry met a fault of its own, or a code that the specification does not list."""


class RequestInvalid(UnknownError):
    """The registry takes the request for wrong, and gives no code for it that the specification lists."""

    status, summary = 400, "the registry does not take the request"


class GrammarError(LayerhouseError):
    code, status, summary = "GRAMMAR_INVALID", 400, "value does not follow its grammar"


class StorageError(LayerhouseError):
    code, summary = "STORAGE_FAILED", "storage failed"


class PathUnknown(StorageError):
    code, status, summary = "PATH_UNKNOWN", 404, "nothing is stored at this path"


class StorageFull(StorageError):
    code, status, summary = "STORAGE_FULL", 507, "no space is left"


class ObjectTooLong(StorageError):
    code, summary = "OBJECT_TOO_LONG", "the object is longer than expected"


class TransferError(LayerhouseError):
    code, status, summary = "TRANSFER_FAILED", 502, "transfer failed"


class HostUnreachable(TransferError):
    code, summary = "HOST_UNREACHABLE", "host unreachable"


class NoConnection(HostUnreachable):
    code, summary = "NO_CONNECTION", "no connection"


class ResponseInvalid(TransferError):
    code, summary = "RESPONSE_INVALID", "the registry's answer does not follow the specification"


class DigestMismatch(TransferError):
    code, summary = "DIGEST_MISMATCH", "content does not match its digest"


class ContentTruncated(TransferError):
    code, summary = "CONTENT_TRUNCATED", "content ended early"


class PlatformUnknown(TransferError):
    code, status, summary = "PLATFORM_UNKNOWN", 404, "no image for this platform"


class ConfigurationError(TransferError):
    code, status, summary = "CONFIGURATION_INVALID", 500, "a setting of the client is wrong"


class CredentialsError(TransferError):
    code, status, summary = "CREDENTIALS_FAILED", 500, "credentials cannot be read, asked for or kept"


class ArchiveInvalid(TransferError):
    code, status, summary = "ARCHIVE_INVALID", 400, "no image archive"


class LayerInvalid(TransferError):
    code, status, summary = "LAYER_INVALID", 400, "the layer cannot be unpacked"


class CacheError(TransferError):
    code, status, summary = "CACHE_FAILED", 500, "the local cache cannot be used"


def envelope(*errors: RegistryError) -> dict[str, Any]:
    """Returns the specification's JSON body for `errors` (distribution-spec, "Error Codes")."""
    return {"errors": [error.to_json() for error in errors]}


def from_envelope(body: Any, status: int) -> RegistryError:
    """Rebuilds the first error of a registry's JSON body.

    Args:
        body: the decoded JSON, of any shape: a registry behind a proxy may answer anything.
        status: HTTP status of the answer; decides the class where the body does not.
    """
    entries = body.get("errors") if isinstance(body, dict) else None
    entry = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    message = entry.get("message")
    text = message if isinstance(message, str) else None
    return _class_for(entry.get("code"), status)(text, detail=entry.get("detail"))


def _class_for(code: Any, status: int) -> type[RegistryError]:
    same_code = [each for each in _descendants(RegistryError) if each.code == code]
    exact = [each for each in same_code if each.status == status]
    by_status = {401: Unauthorized, 403: Denied, 405: Unsupported, 416: RangeInvalid, 429: TooManyRequests}
    by_status |= dict.fromkeys((502, 503, 504), Unavailable)
    candidates = exact or same_code
    unlisted = RequestInvalid if 400 <= status < 500 else UnknownError
    return candidates[0] if candidates else by_status.get(status, unlisted)


def _descendants(base: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for each in base.__subclasses__():
        yield each
        yield from _descendants(each)
