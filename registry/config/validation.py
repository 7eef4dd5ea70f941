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
        description="Regular expressions, as Go has them: each URL has to match one, somewhere in it. With none"
        " here and none in `deny`, manifests with URLs are refused.",
    )
    deny: tuple[Pattern, ...] = Field(
        default=(), description="Regular expressions: a manifest with a URL that matches one is refused."
    )


class ListedPlatform(Section):
    architecture: str = Field(description="As an index names it, like `amd64`.")
    os: str = Field(description="As an index names it, like `linux`.")


class Indexes(Section):
    """Which children of an index have to be there before it is taken."""

    platforms: Annotated[Literal["all", "none", "list"], BeforeValidator(lower)] | None = Field(
        default=None,
        description="Which images of an index have to be there before it is taken: `all`, `none`, or those of the"
        " platforms listed (`list`). Not given, it is `all`, and `none` with `layerhouse.sparseimages`.",
    )
    platformlist: tuple[ListedPlatform, ...] = Field(default=(), description="Platforms for `list`; none means all.")


class ManifestValidation(Section):
    urls: Urls = Urls()
    indexes: Indexes = Indexes()


class Validation(Section):
    """What is asked of manifests that are pushed, beside being ones."""

    enabled: bool | None = Field(
        default=None, description="The old way round: `true` stands above `disabled`, `false` says nothing."
    )
    disabled: bool = Field(default=False, description="Whether `validation.manifests` does not count.")
    manifests: ManifestValidation = ManifestValidation()

    @property
    def counts(self) -> bool:
        """Whether `manifests` is in force, as Distribution makes it out of two keys."""
        return self.enabled or not self.disabled


class RepositoryPolicy(Section):
    classes: tuple[str, ...] = Field(
        default=(),
        description="`image` and `plugin`: what is of another class, or of none, is refused. Not given, all is taken.",
    )


class Policy(Section):
    repository: RepositoryPolicy = RepositoryPolicy()


class Catalog(Section):
    maxentries: Annotated[int, AfterValidator(lambda given: given if given > 0 else _PAGE)] = Field(
        default=_PAGE, description="How many repositories a page of the catalogue has at most; 1000 for `0` and less."
    )


class TagList(Section):
    maxtags: Annotated[int, Field(ge=0), AfterValidator(lambda given: given or _PAGE)] = Field(
        default=_PAGE, description="How many tags a page has at most; 1000 for `0`."
    )
