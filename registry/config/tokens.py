"""`layerhouse.tokens`: the token server within the registry."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from registry.config.authentication import address
from registry.config.values import Duration, Section

_LEAST, _MOST = timedelta(minutes=1), timedelta(days=1)


class Tokens(Section):
    """A token server of the registry's own (`docs/tokens.md`)."""

    enabled: bool = Field(
        default=False,
        description="Whether this registry gives out tokens, at `/auth/token`, to the users of `auth.htpasswd`, to "
        "personal and robot tokens, and to nobody in particular what the rules let anybody do. Clients are then sent "
        "there for a token, and passwords are taken as before.",
    )
    realm: Annotated[str, AfterValidator(address)] | None = Field(
        default=None,
        description="Its address as clients reach it; `/auth/token` at the host that they asked (or `http.host`) "
        "where nothing is said.",
    )
    issuer: Annotated[str, Field(min_length=1)] = Field(default="layerhouse", description="Its name in the tokens.")
    service: Annotated[str, Field(min_length=1)] = Field(
        default="layerhouse", description="The name of this registry in the tokens."
    )
    lifetime: Annotated[Duration, Field(ge=_LEAST, le=_MOST)] = Field(
        default=timedelta(minutes=5), description="How long a token lasts, from 1m to 24h."
    )
    refreshlifetime: Annotated[Duration, Field(ge=_MOST)] = Field(
        default=timedelta(days=30),
        description="How long `docker login` lasts while it is not used, at least 24h: the client keeps a token by "
        "which it gets others, in place of the password.",
    )
