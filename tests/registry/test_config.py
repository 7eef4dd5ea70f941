"""The configuration that a deployment of Distribution brings along: its file, its variables, its mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.config import ConfigError, Settings, load

# What the image registry:2 brings along, and a file as many deployments keep it.
IMAGE = """
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""
FULL = """
version: 0.1
log: {level: Debug, formatter: json, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /srv/images, maxthreads: 100}
  delete: {enabled: true}
  redirect: {disable: true}
  maintenance:
    uploadpurging: {enabled: true, age: 24h, interval: 1h30m, dryrun: true}
    readonly: {enabled: false}
http: {addr: "0.0.0.0:5001", secret: asecret, host: https://registry.example, relativeurls: true, draintimeout: 60s}
catalog: {maxentries: 50}
tags: {maxtags: 20}
layerhouse: {workers: 3, sparseimages: true}
"""


@pytest.fixture(autouse=True)
def environment() -> Iterator[MutableMapping[str, str]]:
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("REGISTRY_", "LAYERHOUSE_SETTINGS"))]:
        del os.environ[name]
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "config.yml"
        file.write_text(text)
        return file

    return write


def test_without_a_file_only_this_machine_may_connect_and_deletes_are_allowed() -> None:
    settings = load()
    assert (settings.http.bound_host, settings.http.bound_port) == ("127.0.0.1", 5000)
    assert settings.storage.filesystem.rootdirectory == Path("registry-data")
    assert settings.storage.delete.enabled
    assert settings.layerhouse.workers == 1


def test_the_file_of_the_image_registry_2_means_what_it_meant(written: Callable[[str], Path]) -> None:
    settings = load(written(IMAGE))
    assert (settings.http.bound_host, settings.http.bound_port) == ("0.0.0.0", 5000)
    assert settings.storage.filesystem.rootdirectory == Path("/var/lib/registry")
    assert not settings.storage.delete.enabled
    assert settings.log.level == "info"
    purging = settings.storage.maintenance.uploadpurging
    assert (purging.enabled, purging.age, purging.interval) == (True, timedelta(hours=168), timedelta(hours=24))


def test_a_full_file_is_read_whole(written: Callable[[str], Path]) -> None:
    settings = load(written(FULL))
    assert settings.log.level == "debug"
    assert settings.storage.filesystem.rootdirectory == Path("/srv/images")
    assert settings.storage.delete.enabled
    purging = settings.storage.maintenance.uploadpurging
    assert (purging.age, purging.interval, purging.dryrun) == (timedelta(hours=24), timedelta(minutes=90), True)
    assert (settings.http.addr, settings.http.draintimeout) == ("0.0.0.0:5001", timedelta(seconds=60))
    assert (settings.catalog.maxentries, settings.tags.maxtags) == (50, 20)
    assert (settings.layerhouse.workers, settings.layerhouse.sparseimages) == (3, True)


@pytest.mark.parametrize(
    "text", ["version: 0.1", "version: '0.1'\nstorage: {filesystem: }\nhttp:\n", "version: 0.1\n1: x"]
)
def test_keys_without_values_stand_for_the_defaults(written: Callable[[str], Path], text: str) -> None:
    assert load(written(text)) == Settings()


def test_variables_stand_above_the_file_and_options_above_both(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = "/from/variable"
    environment["REGISTRY_HTTP_ADDR"] = "127.0.0.1:1"
    environment["REGISTRY_LOG_LEVEL"] = "error"
    environment["REGISTRY_STORAGE_DELETE_ENABLED"] = "false"
    environment["REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_AGE"] = "48h"
    settings = load(written(FULL), addr="127.0.0.1:2", workers=5)
    assert settings.storage.filesystem.rootdirectory == Path("/from/variable")
    assert (settings.http.addr, settings.log.level, settings.layerhouse.workers) == ("127.0.0.1:2", "error", 5)
    assert not settings.storage.delete.enabled
    assert settings.storage.maintenance.uploadpurging.age == timedelta(hours=48)
    assert settings.storage.maintenance.uploadpurging.interval == timedelta(minutes=90)
    assert load(root=Path("/from/option")).storage.filesystem.rootdirectory == Path("/from/option")


@pytest.mark.parametrize(
    ("name", "value", "enabled"),
    [
        ("REGISTRY_STORAGE_DELETE_ENABLED", "true", True),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "yes", True),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "", False),
        ("REGISTRY_STORAGE_DELETE", "{enabled: true}", True),
        ("REGISTRY_STORAGE", "{delete: {enabled: true}}", True),
        ("REGISTRY_STORAGE", "filesystem", False),
        ("REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR", "inmemory", False),
    ],
)
def test_a_variable_may_be_a_value_or_a_section(
    written: Callable[[str], Path], environment: MutableMapping[str, str], name: str, value: str, enabled: bool
) -> None:
    environment[name] = value
    assert load(written(IMAGE)).storage.delete.enabled is enabled


def test_the_driver_and_what_lies_below_it_may_be_given_by_variables(environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_STORAGE"] = "filesystem"
    environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = "/data: [odd"
    assert load().storage.filesystem.rootdirectory == Path("/data: [odd")


def test_variables_that_kubernetes_makes_for_a_service_called_registry_do_no_harm(
    environment: MutableMapping[str, str],
) -> None:
    environment["REGISTRY_PORT"] = "tcp://10.0.0.1:5000"
    environment["REGISTRY_PORT_5000_TCP"] = "tcp://10.0.0.1:5000"
    environment["REGISTRY_PORT_5000_TCP_ADDR"] = "10.0.0.1"
    environment["REGISTRY_SERVICE_HOST"] = "10.0.0.1"
    environment["REGISTRY_"] = "x"
    environment["REGISTRY__"] = "x"
    assert load() == load()
    assert load().http.bound_port == 5000


def test_a_variable_may_name_the_file(written: Callable[[str], Path], environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_CONFIGURATION_PATH"] = str(written(FULL))
    assert load().http.bound_port == 5001


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "version"),
        ("version: 0.2", "version"),
        ("[]", "version"),
        ("version: 0.1\nhttp: [", "line 2"),
        ("\x01", "special characters"),
        ("version: 0.1\nhttp: nonsense", "http"),
        ("version: 0.1\nhttp: {addr: 5000}", "http.addr"),
        ("version: 0.1\nhttp: {addr: '5000'}", "http.addr: expected HOST:PORT, like 127.0.0.1:5000, got '5000'"),
        ("version: 0.1\nhttp: {addr: '::1:5000'}", "http.addr"),
        ("version: 0.1\nhttp: {addr: 'host:65536'}", "http.addr"),
        ("version: 0.1\nhttp: {addr: 'host:http'}", "http.addr"),
        (
            "version: 0.1\nlog: {level: loud}",
            "log.level: Input should be 'error', 'warn', 'info' or 'debug', got 'loud'",
        ),
        ("version: 0.1\nlog: {level: 3}", "log.level"),
        ("version: 0.1\nstorage: {delete: {enabled: perhaps}}", "storage.delete.enabled"),
        ("version: 0.1\nstorage: {filesystem: {rootdirectory: [a]}}", "storage.filesystem.rootdirectory"),
        (
            "version: 0.1\nstorage: {maintenance: {uploadpurging: {age: 1 week}}}",
            "storage.maintenance.uploadpurging.age",
        ),
        ("version: 0.1\nstorage: {maintenance: {uploadpurging: {age: -1}}}", "storage.maintenance.uploadpurging.age"),
        ("version: 0.1\nstorage: {maintenance: {uploadpurging: {interval: 0}}}", "uploadpurging.interval"),
        ("version: 0.1\nhttp: {draintimeout: 99999999999999h}", "http.draintimeout"),
        ("version: 0.1\nhttp: {draintimeout: .inf}", "http.draintimeout"),
        ("version: 0.1\ncatalog: {maxentries: 0}", "catalog.maxentries"),
        ("version: 0.1\ntags: {maxtags: many}", "tags.maxtags"),
        ("version: 0.1\nlayerhouse: {workers: 65}", "layerhouse.workers"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_file_and_key(written: Callable[[str], Path], text: str, told: str) -> None:
    file = written(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert error.value.message.startswith(f"{file}: ")
    assert told in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("auth: {htpasswd: {realm: r, path: /secret}}", "auth"),
        ("auth: htpasswd", "auth"),
        ("proxy: {remoteurl: 'https://user:secret@example.com'}", "proxy.remoteurl"),
        ("http: {tls: {certificate: /secret, key: /k}}", "http.tls"),
        ("storage: {s3: {secretkey: secret, bucket: b}}", "storage"),
        ("storage: {inmemory: {}, delete: {enabled: true}}", "storage"),
        ("storage: {maintenance: {readonly: {enabled: true}}}", "storage.maintenance.readonly.enabled"),
    ],
)
def test_who_asks_for_protection_that_is_not_there_is_not_served_without_it(
    written: Callable[[str], Path], text: str, key: str
) -> None:
    file = written(f"version: 0.1\n{text}")
    with pytest.raises(ConfigError, match="not supported yet") as error:
        load(file)
    assert error.value.message.startswith(f"{file}: {key}: ")
    assert "secret" not in error.value.message.removeprefix(str(file))


@pytest.mark.parametrize("text", ["proxy: {}", "proxy: {remoteurl: ''}", "auth: {}", "http: {tls: {}}"])
def test_empty_sections_ask_for_nothing(written: Callable[[str], Path], text: str) -> None:
    assert load(written(f"version: 0.1\n{text}")).http.bound_port == 5000


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REGISTRY_HTTP_ADDR", "nowhere", "REGISTRY_HTTP_ADDR: http.addr: "),
        ("REGISTRY_LOG_LEVEL", "loud", "REGISTRY_LOG_LEVEL: log.level: "),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "maybe", "REGISTRY_STORAGE_DELETE_ENABLED: storage.delete.enabled: "),
        ("REGISTRY_STORAGE", "s3", "REGISTRY_STORAGE: storage: "),
        ("REGISTRY_STORAGE_S3_BUCKET", "b", "storage: the driver 's3'"),
        ("REGISTRY_AUTH", "htpasswd", "REGISTRY_AUTH: auth: "),
        ("REGISTRY_AUTH_TOKEN_REALM", "https://example.com", "auth: not supported"),
        ("REGISTRY_HTTP_TLS_CERTIFICATE", "/c", "http.tls: not supported"),
    ],
)
def test_a_mistake_in_a_variable_is_told_with_its_name(
    environment: MutableMapping[str, str], name: str, value: str, told: str
) -> None:
    environment[name] = value
    with pytest.raises(ConfigError) as error:
        load()
    assert told in error.value.message


def test_a_mistake_on_the_command_line_is_told_as_one(written: Callable[[str], Path]) -> None:
    for file in (None, written(FULL)):
        with pytest.raises(ConfigError, match=r"^command line: http\.addr: "):
            load(file, addr="nowhere")
        with pytest.raises(ConfigError, match=r"^command line: layerhouse\.workers: .*, got 65$"):
            load(file, workers=65)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: No such file or directory$"):
        load(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("addr", "host", "port"),
    [
        (":5000", "0.0.0.0", 5000),
        ("localhost:0", "localhost", 0),
        ("[::1]:5000", "::1", 5000),
        ("[::]:65535", "::", 65535),
        ("192.0.2.1:80", "192.0.2.1", 80),
    ],
)
def test_an_address_is_read_as_go_writes_it(addr: str, host: str, port: int) -> None:
    http = load(addr=addr).http
    assert (http.bound_host, http.bound_port) == (host, port)


@given(st.integers(0, 500), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_durations_are_read_as_go_writes_them(hours: int, minutes: int, seconds: int, milliseconds: int) -> None:
    read = Settings.model_validate({"http": {"draintimeout": f"{hours}h{minutes}m{seconds}.5s{milliseconds}ms"}})
    expected = timedelta(hours=hours, minutes=minutes, seconds=seconds + 0.5, milliseconds=milliseconds)
    assert abs(read.http.draintimeout - expected) < timedelta(microseconds=2)


@pytest.mark.parametrize(("given", "seconds"), [(30, 30), ("30", 30), (1.5, 1.5), ("0s", 0), ("1.5h", 5400)])
def test_a_bare_number_is_seconds(given: object, seconds: float) -> None:
    read = Settings.model_validate({"http": {"draintimeout": given}})
    assert read.http.draintimeout == timedelta(seconds=seconds)


def test_workers_take_over_exactly_what_the_command_read(written: Callable[[str], Path]) -> None:
    assert Settings.from_environment() == Settings()
    for settings in (load(), load(written(FULL)), load(written(IMAGE), root=Path("r"), addr="[::1]:1", workers=2)):
        settings.to_environment()
        assert Settings.from_environment() == settings
