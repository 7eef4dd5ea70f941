"""The built-in token server, put together from the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from registry.api.tokens import TokenEndpoint, realm
from registry.auth import tokens_database, tokens_signing
from registry.auth.attempts import Attempts
from registry.auth.authenticator import Authenticator
from registry.auth.gate import App
from registry.auth.htpasswd import Htpasswd
from registry.auth.identification import Identification
from registry.auth.policy import Policy
from registry.auth.tokens import OutsideTokens
from registry.auth.tokens_accounts import Accounts
from registry.auth.tokens_database import TokenDatabase
from registry.auth.tokens_own import OwnTokens
from registry.auth.tokens_personal import PersonalTokens
from registry.auth.tokenserver import TokenServer
from registry.config import Settings


def own_tokens(settings: Settings, users: Htpasswd | None, personal: PersonalTokens) -> OwnTokens:
    """Returns what knows the tokens of the built-in token server; makes its key where there is none yet.

    Raises:
        ConfigError: the key cannot be made or used.
    """
    keys = tokens_signing.SigningKeys(settings.state_directory / tokens_signing.FILE)
    return OwnTokens(settings.layerhouse.tokens, keys, Accounts(users, personal), partial(realm, settings))


def with_server(
    app: App, settings: Settings, kinds: Sequence[Authenticator], policy: Policy, attempts: Attempts
) -> App:
    """Returns `app` with the address of the token server before it.

    Args:
        app: the application behind its gate.
        settings: the configuration.
        kinds: all kinds of authentication. Who comes by a token of a token server gets none here: nobody prolongs a
            token with itself.
        policy: the access rules.
        attempts: the logins that failed, here and at the gate.
    """
    own = next(each for each in kinds if isinstance(each, OwnTokens))
    server = TokenServer(
        settings.layerhouse.tokens,
        own.keys,
        accounts=own.accounts,
        identification=Identification(
            [each for each in kinds if not isinstance(each, OwnTokens | OutsideTokens)], attempts
        ),
        policy=policy,
        database=TokenDatabase(settings.state_directory / tokens_database.FILE),
    )
    return TokenEndpoint(app, server)
