"""Files as people write them, taken as they are."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from registry.config import Configuration, load, read
from tests.registry.test_config import environment

__all__ = ["environment"]

FILES = Path(__file__).parent / "configs"
MEANT: dict[str, dict[str, Any]] = {
    "htpasswd-behind-nginx": {
        "auth.htpasswd.path": Path("/etc/registry/htpasswd"),
        "http.host": "https://registry.example.com",
        "http.relativeurls": False,
        "storage.delete.enabled": True,
        "log.accesslog.disabled": True,
    },
    "proxy-cache": {
        "proxy.remoteurl": "https://registry-1.docker.io",
        "proxy.username": "someone",
        "proxy.ttl": timedelta(hours=72),
        "health.storagedriver.enabled": True,
    },
    "notifications": {
        "notifications.events.includereferences": True,
        "http.addr": "0.0.0.0:5000",
        "storage.filesystem.rootdirectory": Path("/data"),
    },
    "read-only": {
        "storage.maintenance.readonly.enabled": True,
        "storage.maintenance.uploadpurging.enabled": False,
        "log.level": "warn",
    },
    "tls": {
        "http.tls.certificate": Path("/certs/domain.crt"),
        "http.tls.clientcas": (Path("/certs/ca.crt"),),
        "http.tls.minimumtls": "tls1.3",
        "http.addr": ":443",
    },
    "debug-address": {
        "http.debug.addr": ":5001",
        "http.debug.prometheus.enabled": True,
        "http.draintimeout": timedelta(seconds=60),
        "log.formatter": "json",
    },
    "token-server": {
        "auth.token.service": "harbor-registry",
        "auth.token.issuer": "harbor-token-issuer",
        "validation.disabled": True,
        "storage.delete.enabled": True,
    },
    "development": {"log.fields": {"service": "registry", "environment": "development"}, "http.addr": "localhost:5000"},
    "under-a-prefix": {"http.prefix": "/containers/", "http.relativeurls": True, "http.addr": "127.0.0.1:5000"},
    "old": {"log.level": "error", "storage.delete.enabled": False},
    "policies": {
        "catalog.maxentries": 1000,
        "tags.maxtags": 100,
        "validation.manifests.indexes.platforms": "list",
        "policy.repository.classes": ("image",),
    },
    "image-v2": {"http.addr": ":5000", "storage.delete.enabled": False, "health.storagedriver.threshold": 3},
    "image-v3": {"http.debug.addr": ":5001", "http.debug.prometheus.path": "/metrics"},
    "own-certificate": {"http.tls.key": Path("/certs/domain.key"), "http.tls.clientcas": ()},
    "several-receivers": {"log.accesslog.disabled": True, "storage.delete.enabled": True},
    "logstash": {"log.formatter": "logstash", "log.level": "info"},
    "deletes": {"storage.delete.enabled": True, "storage.maintenance.uploadpurging.age": timedelta(hours=24)},
    "every-key": {"http.prefix": "/my/nested/registry/", "log.formatter": "logstash"},
}


@pytest.mark.parametrize("name", sorted(MEANT))
def test_a_file_means_what_it_means_to_distribution(name: str) -> None:
    settings = load(FILES / f"{name}.yml")
    assert {key: attrgetter(key)(settings) for key in MEANT[name]} == MEANT[name]


def test_secrets_keep_their_zeros_and_lists_of_headers_are_text() -> None:
    password = load(FILES / "proxy-cache.yml").proxy.password
    assert password is not None
    assert password.get_secret_value() == "00123456"
    headers = load(FILES / "under-a-prefix.yml").http.headers
    assert headers["Access-Control-Allow-Credentials"] == ("true",)
    assert headers["Access-Control-Max-Age"] == ("1728000",)
    assert headers["Access-Control-Allow-Methods"] == ("HEAD", "GET", "OPTIONS", "DELETE")


def test_a_chart_gives_the_driver_by_variables(environment: MutableMapping[str, str]) -> None:
    assert "none is given" in read(FILES / "kubernetes.yml").mistakes[0]
    environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = "/var/lib/registry"
    environment["REGISTRY_STORAGE_DELETE_ENABLED"] = "true"
    environment["REGISTRY_HTTP_SECRET"] = "0123"
    settings = load(FILES / "kubernetes.yml")
    assert settings.storage.filesystem.rootdirectory == Path("/var/lib/registry")
    assert settings.storage.delete.enabled
    assert settings.http.secret is not None
    assert settings.http.secret.get_secret_value() == "0123"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("read-only", []),
        ("proxy-cache", ["(7)storage.cache.blobdescriptor"]),
        ("under-a-prefix", ["(5)storage.filesystem.maxthreads", "(7)storage.redirect.disable"]),
        ("development", ["log.hooks"]),
        ("old", ["(7)storage.cache.layerinfo", "redis", "reporting", "compatibility"]),
        ("token-server", ["compatibility"]),
    ],
)
def test_what_a_file_asks_for_in_vain_is_told(name: str, told: list[str]) -> None:
    found: Configuration = read(FILES / f"{name}.yml")
    lines = [remark.text.removeprefix(f"{FILES}/{name}.yml:") for remark in found.remarks]
    keys = [
        f"({line.split(': ')[0]}){line.split(': ')[1]}" if remark.is_harmless else line.split(": ")[1]
        for line, remark in zip(lines, found.remarks, strict=True)
    ]
    assert keys == told
