"""Which kinds of authentication there are, in the order in which they are asked, and the rules behind them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address

from registry.auth.authenticator import Authenticator
from registry.auth.gate import App, Gate
from registry.auth.htpasswd import Htpasswd
from registry.auth.identification import Identification
from registry.auth.policy import ByRules, KnownMayAll, Policy
from registry.config import ConfigError, Settings
from registry.config.http import Http

_log = logging.getLogger("registry")


def guarded(app: App, absent: Callable[[], App], settings: Settings) -> App:
    """Returns `app` behind the gate; `app` itself where neither authentication nor access rules are configured.

    Args:
        app: the application.
        absent: makes the application over an empty store.
        settings: the configuration in force.

    Raises:
        ConfigError: what authentication or rules are made of cannot be used.
    """
    kinds = authenticators(settings)
    if not kinds and not settings.layerhouse.access.is_given:
        return app
    return Gate(app, absent(), Identification(kinds), policy(settings))


def check(settings: Settings) -> None:
    """Says before anything listens what an operator should know.

    Raises:
        ConfigError: what authentication or rules are made of cannot be used.
    """
    kinds = authenticators(settings)
    policy(settings)
    for each in kinds:
        for remark in each.remarks if isinstance(each, Htpasswd) else ():
            _log.warning("%s", remark)
    if not kinds and not settings.layerhouse.access.is_given and not _is_local(settings.http):
        can = "pull" if settings.storage.maintenance.readonly.enabled else "pull, push and overwrite"
        _log.warning("anyone who reaches %s can %s: neither auth nor layerhouse.access is set", settings.http.addr, can)


def _is_local(http: Http) -> bool:
    if http.net == "unix" or http.bound_host == "localhost":
        return True
    try:
        return ip_address(http.bound_host).is_loopback
    except ValueError:
        return False


def authenticators(settings: Settings) -> list[Authenticator]:
    """Returns the kinds of authentication that are configured; those whose answer costs little come first.

    Raises:
        ConfigError: what one is made of cannot be used.
    """
    found: list[Authenticator] = []
    if settings.layerhouse.access.certificates:
        if not settings.http.tls.clientcas:
            raise ConfigError("layerhouse.access.certificates: expected http.tls.clientcas, which prove certificates")
        from registry.auth.certificates import Certificates  # noqa: PLC0415 - cryptography costs time and memory

        found.append(Certificates())
    if settings.auth.token is not None:
        from registry.auth.tokens import OutsideTokens  # noqa: PLC0415 - as above

        found.append(OutsideTokens(settings.auth.token))
    if (htpasswd := settings.auth.htpasswd) is not None:
        found.append(Htpasswd(htpasswd.path, htpasswd.realm))
    return found


def policy(settings: Settings) -> Policy:
    """Returns what decides: the access rules, where there are any.

    Raises:
        ConfigError: they cannot be used.
    """
    access = settings.layerhouse.access
    return ByRules(access) if access.is_given else KnownMayAll()
