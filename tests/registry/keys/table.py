"""Every key that nearly every deployment of `registry:2` uses, and how it is shown that it does what it does there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.registry.keys import checks, checks_tokens
from tests.registry.keys.places import Place

STARRED = frozenset(
    {
        "version",
        "log.level",
        "log.formatter",
        "storage.filesystem.rootdirectory",
        "storage.s3.accesskey",
        "storage.s3.secretkey",
        "storage.s3.region",
        "storage.s3.regionendpoint",
        "storage.s3.bucket",
        "storage.s3.forcepathstyle",
        "storage.s3.rootdirectory",
        "storage.delete.enabled",
        "storage.redirect.disable",
        "storage.maintenance.readonly.enabled",
        "auth.htpasswd.realm",
        "auth.htpasswd.path",
        "auth.token.realm",
        "auth.token.service",
        "auth.token.issuer",
        "auth.token.rootcertbundle",
        "auth.token.jwks",
        "auth.token.autoredirect",
        "auth.token.signingalgorithms",
        "http.addr",
        "http.host",
        "http.secret",
        "http.relativeurls",
        "http.headers",
        "http.tls.certificate",
        "http.tls.key",
        "http.debug.addr",
        "http.debug.prometheus.enabled",
        "notifications.endpoints.0.name",
        "notifications.endpoints.0.url",
        "notifications.endpoints.0.headers",
        "proxy.remoteurl",
        "proxy.username",
        "proxy.password",
        "proxy.ttl",
        "health.storagedriver",
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """A key.

    Attributes:
        key: its path in the file.
        on: the place that has it.
        off: the place that has it not, or otherwise.
        check: what a client or an operator notices of both.
    """

    key: str
    on: str
    off: str
    check: Callable[[Place, Place], None]


_S3 = sorted(key for key in STARRED if key.startswith("storage.s3."))
ROWS = (
    Row("version", "plain", "of-version-2", checks.version),
    Row("log.level", "strict", "plain", checks.level),
    Row("log.formatter", "full", "plain", checks.formatter),
    Row("storage.filesystem.rootdirectory", "full", "plain", checks.rootdirectory),
    *(Row(key, "bucket", "plain", checks.s3) for key in _S3),
    Row("storage.delete.enabled", "full", "plain", checks.delete),
    Row("storage.redirect.disable", "full", "plain", checks.redirect),
    Row("storage.maintenance.readonly.enabled", "strict", "plain", checks.readonly),
    Row("auth.htpasswd.realm", "full", "second", checks.realm),
    Row("auth.htpasswd.path", "full", "second", checks.path),
    Row("auth.token.realm", "tokens", "plain", checks_tokens.realm),
    Row("auth.token.service", "tokens", "tokens-of-others", checks_tokens.service),
    Row("auth.token.issuer", "tokens", "tokens-of-others", checks_tokens.issuer),
    Row("auth.token.rootcertbundle", "tokens-of-others", "tokens", checks_tokens.rootcertbundle),
    Row("auth.token.jwks", "tokens", "tokens-of-others", checks_tokens.jwks),
    Row("auth.token.autoredirect", "tokens-of-others", "tokens", checks_tokens.autoredirect),
    Row("auth.token.signingalgorithms", "tokens", "tokens-of-others", checks_tokens.signingalgorithms),
    Row("http.addr", "full", "plain", checks.addr),
    Row("http.host", "full", "second", checks.host),
    Row("http.secret", "full", "second", checks.secret),
    Row("http.relativeurls", "tls", "second", checks.relativeurls),
    Row("http.headers", "full", "plain", checks.headers),
    Row("http.tls.certificate", "tls", "without-certificate", checks.certificate),
    Row("http.tls.key", "tls", "without-key", checks.private_key),
    Row("http.debug.addr", "full", "plain", checks.debug_addr),
    Row("http.debug.prometheus.enabled", "full", "second", checks.prometheus),
    Row("notifications.endpoints.0.name", "full", "second", checks.name),
    Row("notifications.endpoints.0.url", "full", "second", checks.url),
    Row("notifications.endpoints.0.headers", "full", "second", checks.endpoint_headers),
    Row("proxy.remoteurl", "mirror-of-all", "second", checks.remoteurl),
    Row("proxy.username", "mirror", "mirror-of-mallory", checks.credentials),
    Row("proxy.password", "mirror", "mirror-of-wrong-password", checks.credentials),
    Row("proxy.ttl", "mirror", "mirror-of-all", checks.ttl),
    Row("health.storagedriver", "tls", "plain", checks.storagedriver),
)
