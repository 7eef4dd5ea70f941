"""`proxy`: the registry that is mirrored."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from registry.config.values import Duration, Secret, Section, Unserved


class Exec(Section):
    """A program that Distribution asks for credentials."""

    command: str = Field(description="The program.")
    lifetime: Duration | None = Field(default=None, description="How long its answer is used.")


class Proxy(Section):
    """A registry that is mirrored."""

    remoteurl: str | None = Field(
        default=None,
        description="The registry to mirror, like `https://registry-1.docker.io`; none is mirrored without.",
    )
    username: str | None = Field(default=None, description="Who asks there; anonymous without.")
    password: Secret | None = Field(default=None, description="The password, or a token, for `username`.")
    exec: Annotated[Exec | None, Unserved("no program is run; `username` and `password` count")] = Field(
        default=None, description="A program that Distribution asks for credentials."
    )
    ttl: Duration = Field(
        default=timedelta(hours=168), description="How long what was fetched is kept after its last use; `0`: for ever."
    )
    cachewritetimeout: Annotated[
        Duration | None, Unserved("a fetch goes on as long as bytes come", is_harmless=True)
    ] = Field(default=None, description="How long writing what was fetched may take.")
