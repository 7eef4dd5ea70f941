"""Which kinds of authentication there are, in the order in which they are asked, and the rules behind them."""

from __future__ import annotations

from collections.abc import Callable

from registry.auth.authenticator import Authenticator
from registry.auth.gate import App, Gate
from registry.auth.identification import Identification
from registry.auth.policy import KnownMayAll, Policy
from registry.config import Settings


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
    if not kinds:
        return app
    return Gate(app, absent(), Identification(kinds), policy(settings))


def authenticators(_settings: Settings) -> list[Authenticator]:
    """Returns the kinds of authentication that are configured; those whose answer costs nothing come first."""
    return []


def policy(_settings: Settings) -> Policy:
    """Returns the access rules in force."""
    return KnownMayAll()
