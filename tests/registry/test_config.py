"""The configuration that a deployment of Distribution brings along: its file and what it means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.config import ConfigError, Settings, load, read

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
LEAST = "version: 0.1\nstorage: filesystem\n"


@pytest.fixture(autouse=True)
def environment() -> Iterator[MutableMapping[str, str]]:
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("REGISTRY_", "LAYERHOUSE_"))]:
        del os.environ[name]
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("config") / "config.yml"


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
    "text",
    [
        LEAST,
        "version: '0.1'\nstorage: {filesystem: }\nhttp:\nlog: ~\n",
        "version: 0.1\nstorage: {filesystem: {}}\nproxy: {remoteurl: ''}\nauth: {}\nhttp: {tls: {}, host: '', addr: ~}",
        "version: 0.1\nstorage: filesystem\nauth:\nhttp: {tls: {certificate: '', clientcas: }}\nlog: {fields: }\n",
    ],
)
def test_keys_without_values_stand_for_the_defaults(written: Callable[[str], Path], text: str) -> None:
    assert load(written(text)) == Settings()


def test_texts_are_what_is_written_and_not_what_yaml_makes_of_it(written: Callable[[str], Path]) -> None:
    settings = load(
        written(
            f"{LEAST}proxy: {{remoteurl: 'https://example.com', username: 1_000, password: 0123}}\n"
            "http: {secret: 2024-01-01, headers: {X-A: [1.10, yes]}}\n"
            "log: {fields: {number: 12, switch: yes, version: '1.10', day: 2024-99-99, list: [1, a], none: !!int x}}\n"
        )
    )
    assert settings.proxy.username == "1_000"
    assert settings.proxy.password is not None
    assert settings.proxy.password.get_secret_value() == "0123"
    assert settings.http.secret is not None
    assert settings.http.secret.get_secret_value() == "2024-01-01"
    assert settings.http.headers == {"X-A": ("1.10", "yes")}
    fields = {"number": 12, "switch": True, "version": "1.10", "day": "2024-99-99", "list": [1, "a"], "none": "x"}
    assert settings.log.fields == fields


@pytest.mark.parametrize("text", ["yes", "Yes", "on", "true", "TRUE", "y", "1"])
def test_a_switch_is_on_as_yaml_says_it(written: Callable[[str], Path], text: str) -> None:
    assert load(written(f"version: 0.1\nstorage: {{filesystem: , delete: {{enabled: {text}}}}}")).storage.delete.enabled


def test_anchors_and_merge_keys_work(written: Callable[[str], Path]) -> None:
    endpoints = load(
        written(
            f"{LEAST}notifications:\n  endpoints:\n"
            "  - &a {name: a, url: 'http://a', timeout: 5s, headers: &h {X-Key: [k]}}\n"
            "  - {<<: *a, name: b}\n"
            "  - {<<: [{name: c, url: 'http://c'}, *a], threshold: 3}\n"
            "  - {name: d, url: 'http://d', headers: *h}\n"
        )
    ).notifications.endpoints
    assert [(each.name, each.url, each.timeout.seconds) for each in endpoints] == [
        ("a", "http://a", 5),
        ("b", "http://a", 5),
        ("c", "http://c", 5),
        ("d", "http://d", 1),
    ]
    assert endpoints[2].threshold == 3
    assert endpoints[3].headers == endpoints[0].headers


def test_one_value_stands_for_a_list_of_one(written: Callable[[str], Path]) -> None:
    settings = load(written(f"{LEAST}policy: {{repository: {{classes: image}}}}\nhttp: {{headers: {{X-A: b}}}}"))
    assert (settings.policy.repository.classes, settings.http.headers) == (("image",), {"X-A": ("b",)})


def test_the_old_level_of_the_log_counts_where_there_is_no_new_one(written: Callable[[str], Path]) -> None:
    assert load(written(f"{LEAST}loglevel: Warn")).log.level == "warn"
    assert load(written(f"{LEAST}loglevel: warn\nlog: {{formatter: json}}")).log.level == "warn"
    assert load(written(f"{LEAST}loglevel: warn\nlog: {{level: debug}}")).log.level == "debug"


def test_nobody_is_asked_who_they_are_where_the_file_says_none(written: Callable[[str], Path]) -> None:
    for text in ("auth: none", "auth: {none: }", "auth: {none: {}}"):
        auth = load(written(f"{LEAST}{text}")).auth
        assert (auth.htpasswd, auth.token) == (None, None)


def test_images_in_memory_are_one_word(written: Callable[[str], Path]) -> None:
    for text in ("inmemory", "{inmemory: }", "{inmemory: {}, delete: {enabled: false}}"):
        assert load(written(f"version: 0.1\nstorage: {text}")).storage.inmemory is not None


def test_the_file_is_the_argument_else_what_a_variable_names_else_what_the_image_keeps(
    tmp_path: Path, environment: MutableMapping[str, str]
) -> None:
    for number in (1, 2, 3, 4):
        (tmp_path / f"{number}.yml").write_text(f"{LEAST}tags: {{maxtags: {number}}}")
    environment["LAYERHOUSE_CONFIGURATION_PATHS"] = f"{tmp_path}/0.yml:{tmp_path}/3.yml:{tmp_path}/4.yml"
    assert load().tags.maxtags == 3
    environment["REGISTRY_CONFIGURATION_PATH"] = str(tmp_path / "2.yml")
    assert load().tags.maxtags == 2
    assert load(tmp_path / "1.yml").tags.maxtags == 1
    environment["REGISTRY_CONFIGURATION_PATH"] = ""
    environment["LAYERHOUSE_CONFIGURATION_PATHS"] = f"{tmp_path}/0.yml:"
    assert load().http.addr == "127.0.0.1:5000"


def test_options_stand_above_all(written: Callable[[str], Path], environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_HTTP_ADDR"] = "127.0.0.1:1"
    settings = load(written(FULL), root=Path("/from/option"), addr="127.0.0.1:2", workers=5)
    assert (settings.http.addr, settings.layerhouse.workers) == ("127.0.0.1:2", 5)
    assert settings.storage.filesystem.rootdirectory == Path("/from/option")
    assert load(written("version: 0.1"), root=Path("r")).storage.filesystem.rootdirectory == Path("r")


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


@given(st.integers(0, 500), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999), st.integers(0, 999))
def test_durations_are_read_as_go_writes_them(
    hours: int, minutes: int, seconds: int, milliseconds: int, microseconds: int
) -> None:
    text = f"{hours}h{minutes}m{seconds}.5s{milliseconds}ms{microseconds}us0ns"
    read = Settings.model_validate({"http": {"draintimeout": text}})
    expected = timedelta(
        hours=hours, minutes=minutes, seconds=seconds + 0.5, milliseconds=milliseconds, microseconds=microseconds
    )
    assert abs(read.http.draintimeout - expected) < timedelta(microseconds=2)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("1.5h", 5400), (".5s", 0.5), ("1000000", 0.001), ("1500000000", 1.5), ("2µs", 2e-6)],
)
def test_a_number_without_a_unit_is_nanoseconds_as_in_distribution(text: str, seconds: float) -> None:
    read = Settings.model_validate({"http": {"draintimeout": text}})
    assert read.http.draintimeout == timedelta(seconds=seconds)


def test_what_is_not_served_is_told_once_with_what_happens_instead(written: Callable[[str], Path]) -> None:
    file = written(f"{IMAGE}redis: {{addr: 'redis:6379', password: hush}}\nreporting: {{bugsnag: {{apikey: hush}}}}\n")
    told = {remark.text: remark.is_harmless for remark in read(file).remarks}
    assert told == {
        f"{file}:8: storage.cache.blobdescriptor: is not served: the tree itself answers, which is as fast and never "
        "stale": True,
        f"{file}:20: redis: is not served: nothing is cached outside of this process": False,
        f"{file}:21: reporting: is not served: nothing is reported to outside services": False,
    }
    assert read(written(f"{LEAST}redis: {{}}\nmiddleware:\nhttp: {{h2c: {{enabled: no}}}}")).remarks == ()


def test_workers_take_over_exactly_what_the_command_read(written: Callable[[str], Path]) -> None:
    assert Settings.from_environment() == Settings()
    secrets = f"{LEAST}proxy: {{password: hush}}\nlayerhouse: {{trustedproxies: [10.0.0.0/8, '::1']}}\n"
    for settings in (load(), load(written(FULL)), load(written(IMAGE), root=Path("r"), addr="[::1]:1", workers=2)):
        settings.to_environment()
        assert Settings.from_environment() == settings
    settings = load(written(secrets))
    settings.to_environment()
    assert Settings.from_environment() == settings
    assert "hush" not in str(dict(os.environ))


def test_a_configuration_that_no_process_could_be_given_is_refused_before_any_starts(
    written: Callable[[str], Path],
) -> None:
    text = f"{LEAST}log: {{fields: {{a: {'a' * 140_000}}}}}"
    with pytest.raises(ConfigError, match="longer than"):
        load(written(text), workers=2).to_environment()
    load(written(text), workers=1).to_environment()
