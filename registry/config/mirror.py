"""`layerhouse.mirror`: registries whose images are served here too, each under a name of its own."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from registry.config.access import Pattern, listed
from registry.config.pins import Pinned
from registry.config.values import Duration, Secret, Section, Size

DOCKER_HUB = "docker.io"
"""The one registry whose address is not its name, and whose names of one part stand below `library/`."""
_HUB_URL = "https://registry-1.docker.io"
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII)
_ALIAS = re.compile(r"[A-Za-z0-9._\[\]:-]{1,255}", re.ASCII)


def _is_name(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > 128:
        raise ValueError(f"expected the first part of repositories' names, like ghcr.io, got {text!r:.80}")
    return text


def _is_alias(text: str) -> str:
    if not _ALIAS.fullmatch(text):
        raise ValueError(f"expected a host, like registry-1.docker.io or 10.0.0.1:5000, got {text!r:.80}")
    return text


def registry_url(text: str) -> str:
    """Returns a registry's URL, without a slash at its end.

    Raises:
        ValueError: it is none; the message holds neither user nor password.
    """
    shown = f", got {text!r:.120}" if "@" not in text else ""
    expected = f"expected a URL like https://registry.example.com, without a user in it{shown}"
    try:
        url = urlsplit(text.rstrip("/"))
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError as error:
        raise ValueError(expected) from error
    if not usable or url.username is not None or url.query or url.fragment or not text.isprintable() or " " in text:
        raise ValueError(expected)
    return url.geturl()


_Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(listed)]


class MirroredRegistry(Section):
    """One registry that is mirrored."""

    name: Annotated[str, AfterValidator(_is_name)] = Field(
        description="How it is called here, like `docker.io` or `ghcr.io`: the first part of the names that its "
        "repositories have here, in the tree, in access rules and in events, and what clients say in `ns`."
    )
    aliases: Annotated[tuple[Annotated[str, AfterValidator(_is_alias)], ...], BeforeValidator(listed)] = Field(
        default=(),
        description="What clients may say in `ns` beside `name`, one or a list, like `registry-1.docker.io`.",
    )
    url: Annotated[str, AfterValidator(registry_url)] | None = Field(
        default=None,
        description="Where it is reached; `https://` and its name without, and for `docker.io` "
        "`https://registry-1.docker.io`.",
    )
    username: str | None = Field(default=None, description="Who asks there; anonymous without.")
    password: Secret | None = Field(default=None, description="The password, or a token, for `username`.")
    dockerconfig: Path | None = Field(
        default=None,
        description="In place of `username`: a `config.json` of docker, whose entry, or credential helper, for the "
        "host of `url` counts. It is read at the start.",
    )
    ca: Path | None = Field(
        default=None,
        description="A file of certificates that are trusted there, and where it leads to, beside the system's.",
    )
    ttl: Duration = Field(
        default=timedelta(hours=168),
        description="How long what was fetched is kept after its last use; `0`: for ever.",
    )
    fresh: Duration = Field(
        default=timedelta(minutes=1),
        description="How long it is believed what a tag stands for, which tags there are, and what refers to an "
        "image, before it is asked again; `0`: it is asked each time. What a digest names never changes.",
    )
    allow: _Patterns = Field(
        default=("**",),
        description="Which of its repositories are mirrored, one or a list, by their names there, like `library/*`; "
        "patterns are those of `layerhouse.access.rules`.",
    )
    refuse: _Patterns = Field(
        default=(), description="Which are not, whatever `allow` says: they are answered as if there were none."
    )
    cap: Size | None = Field(
        default=None,
        description="How much of it is kept at most, like `200GB`: what was not used for longest makes room.",
    )

    @model_validator(mode="after")
    def _knows_who_asks(self) -> MirroredRegistry:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.username is not None and self.dockerconfig is not None:
            raise ValueError("expected either username and password or dockerconfig")
        return self

    @property
    def address(self) -> str:
        """Its URL, without a slash at its end."""
        return self.url or (_HUB_URL if self.name == DOCKER_HUB else f"https://{self.name}")


class Mirror(Section):
    """Registries whose images are served here too, fetched when somebody first asks for them, and kept.

    Beside them, images can be pushed as ever. Not together with `proxy`, which mirrors one registry and hosts nothing.
    """

    upstreams: tuple[MirroredRegistry, ...] = Field(
        default=(), description="The registries; nothing else is ever asked, whatever a client names."
    )
    default: str | None = Field(
        default=None,
        description="Which of them, by its `name`, has what is asked for without naming any: `docker.io` for docker's "
        "`registry-mirrors`. Without, such names are hosted here.",
    )
    hosted: _Patterns = Field(
        default=(),
        description="Repositories that are hosted here although a default is set, one or a list, like `team/**`.",
    )
    cap: Size | None = Field(
        default=None,
        description="How much is kept of all of them at most; what was not used for longest makes room.",
    )
    stale: Duration | None = Field(
        default=None,
        description="For how long after upstream last confirmed it a tag is served that upstream, which fails, cannot "
        "be asked for; for ever where nothing is said, `0` for not at all.",
    )
    pins: Annotated[tuple[Pinned, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Images that stay, however long nobody uses them: `docker.io/library/alpine`, with a tag or a "
        "digest for that alone; `*` and `**` may stand in the name, `*` in the tag.",
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Mirror:
        called = [text.lower() for each in self.upstreams for text in (each.name, *each.aliases)]
        doubled = {text for text in called if called.count(text) > 1}
        if doubled:
            raise ValueError(f"expected each name and alias once, got {', '.join(sorted(doubled))} twice")
        if self.default is not None and self.default not in [each.name for each in self.upstreams]:
            raise ValueError(f"default: expected the name of one of the upstreams, got {self.default!r:.80}")
        return self
