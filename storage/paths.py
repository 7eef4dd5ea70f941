"""The tree on disk: CNCF Distribution's, byte for byte.

    docker/registry/v2/
    ├── blobs/<alg>/<hex[:2]>/<hex>/data
    └── repositories/<name>/
        ├── _layers/<alg>/<hex>/link
        ├── _manifests/
        │   ├── revisions/<alg>/<hex>/link
        │   └── tags/<tag>/
        │       ├── current/link
        │       └── index/<alg>/<hex>/link
        ├── _uploads/<uuid>/{data,startedat}
        └── _referrers/<alg>/<hex>/<alg>/<hex>/descriptor      (ours: derived, can be rebuilt)

A link holds exactly `alg:hex`. Every function takes validated values only, so no path can leave the tree.
Distribution's walks pass over folders in a repository that begin with `_` and that they do not know.
"""

from __future__ import annotations

from uuid import UUID

from ocispec.digest import Digest
from ocispec.reference import RepositoryName, Tag

ROOT = "docker/registry/v2"
BLOBS = f"{ROOT}/blobs"
REPOSITORIES = f"{ROOT}/repositories"
LAYERS = "_layers"
MANIFESTS = "_manifests"
UPLOADS = "_uploads"
PROBE = ".layerhouse/probe"
"""Written and read to see whether storage works; the same bytes by every process."""


def blob_data(digest: Digest) -> str:
    return f"{BLOBS}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def repository(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}"


def layer(name: RepositoryName, digest: Digest) -> str:
    return f"{REPOSITORIES}/{name}/{LAYERS}/{digest.algorithm}/{digest.hex}"


def layer_link(name: RepositoryName, digest: Digest) -> str:
    return f"{layer(name, digest)}/link"


def manifests(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/{MANIFESTS}"


def revisions(name: RepositoryName, algorithm: str) -> str:
    return f"{manifests(name)}/revisions/{algorithm}"


def revision(name: RepositoryName, digest: Digest) -> str:
    return f"{revisions(name, digest.algorithm)}/{digest.hex}"


def revision_link(name: RepositoryName, digest: Digest) -> str:
    return f"{revision(name, digest)}/link"


def tags(name: RepositoryName) -> str:
    return f"{manifests(name)}/tags"


def tag(name: RepositoryName, tag: Tag) -> str:
    return f"{tags(name)}/{tag}"


def tag_current_link(name: RepositoryName, tag_: Tag) -> str:
    return f"{tag(name, tag_)}/current/link"


def tag_index_link(name: RepositoryName, tag_: Tag, digest: Digest) -> str:
    return f"{tag(name, tag_)}/index/{digest.algorithm}/{digest.hex}/link"


def uploads(name: RepositoryName) -> str:
    return f"{REPOSITORIES}/{name}/{UPLOADS}"


def upload(name: RepositoryName, upload_id: UUID) -> str:
    return f"{uploads(name)}/{upload_id}"


def upload_data(name: RepositoryName, upload_id: UUID) -> str:
    return f"{upload(name, upload_id)}/data"


def upload_started_at(name: RepositoryName, upload_id: UUID) -> str:
    return f"{upload(name, upload_id)}/startedat"


def referrers(name: RepositoryName, subject: Digest) -> str:
    return f"{REPOSITORIES}/{name}/_referrers/{subject.algorithm}/{subject.hex}"


def referrer(name: RepositoryName, subject: Digest, digest: Digest) -> str:
    return f"{referrers(name, subject)}/{digest.algorithm}/{digest.hex}/descriptor"
