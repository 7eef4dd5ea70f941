"""`proxy`: the registry that is mirrored."""

from __future__ import annotations

from datetime import timedelta

from registry.config.values import Duration, Secret, Section


class Proxy(Section):
    """A registry that is mirrored."""

    remoteurl: str | None = None
    username: str | None = None
    password: Secret | None = None
    ttl: Duration = timedelta(hours=168)
