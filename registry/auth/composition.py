"""Which kinds of authentication there are, in the order in which they are asked, and the rules behind them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any, Protocol, runtime_checkable

from registry.auth import tokens_database, tokens_file
from registry.auth.attempts import Attempts
from registry.auth.authenticator import Authenticator
from registry.auth.gate import App, Gate
from registry.auth.htpasswd import Htpasswd
from registry.auth.identification import Identification
from registry.auth.policy import ByRules, KnownMayAll, Policy
from registry.auth.tokens_database import TokenDatabase
from registry.auth.tokens_personal import PersonalTokens
from registry.config import ConfigError, Settings
from registry.config.http import Http

Work = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger("registry")


@runtime_checkable
class Working(Protocol):
    """A kind of authentication that has something to do beside the requests."""

    async def run(self) -> None: ...


def guarded(app: App, absent: Callable[[], App], settings: Settings, background: list[Work] | None = None) -> App:
    """Returns `app` behind the gate; `app` itself where neither authentication nor access rules are configured.

    Args:
        app: the application.
        absent: makes the application over an empty store.
        settings: the configuration in force.
        background: gets what is to run beside the requests.

    Raises:
        ConfigError: what authentication or rules are made of cannot be used.
    """
    kinds = authenticators(settings)
    if not kinds and not settings.layerhouse.access.is_given:
        return app
    if background is not None:
        background += [each.run for each in kinds if isinstance(each, Working)]
    rules, attempts = policy(settings), Attempts()
    gate: App = Gate(app, absent(), Identification(kinds, attempts), rules)
    if not settings.layerhouse.tokens.enabled:
        return gate
    from registry.auth.tokens_composition import with_server  # noqa: PLC0415 - cryptography costs time and memory

    return with_server(gate, settings, kinds, rules, attempts)


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
    htpasswd, token, own = settings.auth.htpasswd, settings.auth.token, settings.layerhouse.tokens
    users = None if htpasswd is None else Htpasswd(htpasswd.path, htpasswd.realm)
    if users is not None or token is not None or own.enabled:
        state = settings.state_directory
        personal = PersonalTokens(state / tokens_file.FILE, TokenDatabase(state / tokens_database.FILE), users)
        found.append(personal)
        if own.enabled:
            from registry.auth.tokens_composition import own_tokens  # noqa: PLC0415 - as above

            found.append(own_tokens(settings, users, personal))
    if token is not None:
        from registry.auth.tokens import OutsideTokens  # noqa: PLC0415 - as above

        found.append(OutsideTokens(token))
    return found if users is None else [*found, users]


def policy(settings: Settings) -> Policy:
    """Returns what decides: the access rules, where there are any.

    Raises:
        ConfigError: they cannot be used.
    """
    access = settings.layerhouse.access
    return ByRules(access) if access.is_given else KnownMayAll()
