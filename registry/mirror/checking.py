"""What is said of a mirror before anything listens: no worker can say it as well."""

from __future__ import annotations

from registry.config import ConfigError, Settings


def is_mirror(settings: Settings) -> bool:
    """Whether anything is mirrored."""
    return bool(settings.proxy.remoteurl or settings.layerhouse.mirror.upstreams)


def check(settings: Settings) -> None:
    """Raises ConfigError where an upstream cannot be used, or images do not lie in files."""
    if not is_mirror(settings):
        return
    from registry.mirror.upstream import Upstream  # noqa: PLC0415 - the client is not needed to host

    if settings.storage.driver != "filesystem":
        raise ConfigError(f"storage: a mirror keeps what it fetches in files, not in {settings.storage.driver}")
    for each in settings.layerhouse.mirror.upstreams or (settings.proxy,):
        Upstream(each)
