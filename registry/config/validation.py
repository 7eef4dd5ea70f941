"""`validation` and `policy`: which manifests are taken; `catalog` and `tags`: how much is listed at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from registry.config.values import Section, lower


class Urls(Section):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class ListedPlatform(Section):
    architecture: str
    os: str


class Indexes(Section):
    platforms: Annotated[Literal["all", "none", "list"], BeforeValidator(lower)] | None = None
    platformlist: tuple[ListedPlatform, ...] = ()


class ManifestValidation(Section):
    urls: Urls = Urls()
    indexes: Indexes = Indexes()


class Validation(Section):
    enabled: bool | None = None
    disabled: bool = False
    manifests: ManifestValidation = ManifestValidation()


class RepositoryPolicy(Section):
    classes: tuple[str, ...] = ()


class Policy(Section):
    repository: RepositoryPolicy = RepositoryPolicy()


class Catalog(Section):
    maxentries: Annotated[int, Field(gt=0)] = 1000


class TagList(Section):
    maxtags: Annotated[int, Field(gt=0)] = 1000
