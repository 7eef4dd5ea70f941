"""`validation` and `policy`: which manifests are taken; `catalog` and `tags`: how much is listed at once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from registry.config.patterns import Pattern
from registry.config.values import Section, lower

_PAGE = 1000  # Distribution's, which takes it also where a file says 0


class Urls(Section):
    """Where a manifest may say that its layers lie elsewhere (`urls`, of foreign layers). Only http and https, ever."""

    allow: tuple[Pattern, ...] = Field(
        default=(),
        description="regular expressions: each URL has to match one; without any here and in `deny`, manifests with"
        " URLs are refused",
    )
    deny: tuple[Pattern, ...] = Field(
        default=(), description="regular expressions: a manifest with a URL that matches one is refused"
    )


class ListedPlatform(Section):
    architecture: str = Field(description="as an index names it, like `amd64`")
    os: str = Field(description="as an index names it, like `linux`")


class Indexes(Section):
    """Which children of an index have to be there before it is taken."""

    platforms: Annotated[Literal["all", "none", "list"], BeforeValidator(lower)] | None = Field(
        default=None,
        description="`all`, `none`, or those of `platformlist`; nothing given means `all`, and `none` with"
        " `layerhouse.sparseimages`",
    )
    platformlist: tuple[ListedPlatform, ...] = Field(
        default=(), description="with `list`: platforms whose images have to be there; none listed means all"
    )


class ManifestValidation(Section):
    urls: Urls = Urls()
    indexes: Indexes = Indexes()


class Validation(Section):
    """What is asked of manifests that are pushed, beside being ones."""

    enabled: bool | None = Field(default=None, description="`true` stands above `disabled`; `false` says nothing")
    disabled: bool = Field(default=False, description="whether `validation.manifests` does not count")
    manifests: ManifestValidation = ManifestValidation()

    @property
    def counts(self) -> bool:
        """Whether `manifests` is in force, as Distribution makes it out of two keys."""
        return self.enabled or not self.disabled


class RepositoryPolicy(Section):
    classes: tuple[str, ...] = Field(
        default=(),
        description="`image`, `plugin`: images of another class are refused, those of none too; none listed takes all",
    )


class Policy(Section):
    repository: RepositoryPolicy = RepositoryPolicy()


class Catalog(Section):
    maxentries: Annotated[int, AfterValidator(lambda given: given if given > 0 else _PAGE)] = Field(
        default=_PAGE, description="how many repositories a page of the catalogue has at most; `0` and less: 1000"
    )


class TagList(Section):
    maxtags: Annotated[int, Field(ge=0), AfterValidator(lambda given: given or _PAGE)] = Field(
        default=_PAGE, description="how many tags a page has at most; `0`: 1000"
    )
