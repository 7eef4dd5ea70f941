"""Media types (image-spec, media-types.md; Docker's image manifest, version 2, schema 2)."""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"

DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"

OCTET_STREAM: Final = "application/octet-stream"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS: Final = INDEXES | IMAGES
IMAGE_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})

SCHEMA_1: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

# What a client that reads everything asks for, in its order of preference.
ACCEPT: Final = f"{OCI_INDEX}, {DOCKER_MANIFEST_LIST}, {OCI_MANIFEST}, {DOCKER_MANIFEST}"


def is_foreign(media_type: str) -> bool:
    """Whether a layer may lie outside the registry ("non-distributable", image-spec layer.md; Docker's `foreign`)."""
    return ".nondistributable." in media_type or "rootfs.foreign." in media_type


def essence(header: str) -> str:
    """Returns a `Content-Type` without parameters, in lower case (RFC 9110, section 8.3.1)."""
    return header.partition(";")[0].strip().lower()
