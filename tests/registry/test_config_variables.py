"""`REGISTRY_A_B_C` above `a.b.c`, by Distribution's rules."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.config import Configuration, Settings, load, read
from registry.config.schema import Key, keys
from tests.registry.test_config import FULL, IMAGE, LEAST, environment, scratch, written

__all__ = ["environment", "scratch", "written"]

ENDPOINT = f"{LEAST}notifications:\n  endpoints:\n  - {{name: a, url: 'http://a', headers: {{X-Key: [k]}}}}\n"


def test_variables_stand_above_the_file(written: Callable[[str], Path], environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = "/from/variable"
    environment["REGISTRY_HTTP_ADDR"] = "127.0.0.1:1"
    environment["REGISTRY_LOG_LEVEL"] = "error"
    environment["REGISTRY_STORAGE_DELETE_ENABLED"] = "false"
    environment["REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_AGE"] = "48h"
    settings = load(written(FULL))
    assert settings.storage.filesystem.rootdirectory == Path("/from/variable")
    assert (settings.http.addr, settings.log.level) == ("127.0.0.1:1", "error")
    assert not settings.storage.delete.enabled
    assert settings.storage.maintenance.uploadpurging.age == timedelta(hours=48)
    assert settings.storage.maintenance.uploadpurging.interval == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("name", "value", "enabled"),
    [
        ("REGISTRY_STORAGE_DELETE_ENABLED", "true", True),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "yes", True),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "", False),
        ("REGISTRY_STORAGE_DELETE", "{enabled: true}", True),
        ("REGISTRY_STORAGE", "{filesystem: , delete: {enabled: true}}", True),
        ("REGISTRY_STORAGE", "filesystem", False),
        ("REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR", "inmemory", False),
    ],
)
def test_a_variable_may_be_a_value_or_a_section(
    written: Callable[[str], Path], environment: MutableMapping[str, str], name: str, value: str, enabled: bool
) -> None:
    environment[name] = value
    assert load(written(IMAGE)).storage.delete.enabled is enabled


def test_a_section_takes_the_place_of_the_files_and_keys_below_it_come_after(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_STORAGE"] = "inmemory"
    environment["REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED"] = "true"
    storage = load(written(FULL)).storage
    assert storage.inmemory is not None
    assert storage.maintenance.readonly.enabled
    assert not storage.delete.enabled


def test_the_driver_and_what_lies_below_it_may_be_given_by_variables(environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_STORAGE"] = "filesystem"
    environment["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = "/data: [odd"
    assert load().storage.filesystem.rootdirectory == Path("/data: [odd")


def test_a_kind_of_authentication_may_be_given_by_variables(
    tmp_path: Path, written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_AUTH"] = "htpasswd"
    environment["REGISTRY_AUTH_HTPASSWD_REALM"] = "Realm"
    environment["REGISTRY_AUTH_HTPASSWD_PATH"] = str(tmp_path / "htpasswd")
    auth = load(written(IMAGE)).auth
    assert auth.htpasswd is not None
    assert (auth.htpasswd.realm, auth.htpasswd.path) == ("Realm", tmp_path / "htpasswd")


@pytest.mark.parametrize("password", ["0123", "@at", "a: b", "[x", "*x", "{}", "#hash", "2024-01-01", "null-ish"])
def test_a_password_is_what_it_is(environment: MutableMapping[str, str], password: str) -> None:
    environment["REGISTRY_PROXY_REMOTEURL"] = "https://example.com"
    environment["REGISTRY_PROXY_USERNAME"] = "u"
    environment["REGISTRY_PROXY_PASSWORD"] = password
    found = load().proxy.password
    assert found is not None
    assert found.get_secret_value() == password


def test_numbers_index_lists_and_the_next_one_makes_an_entry(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_NOTIFICATIONS_ENDPOINTS_0_TIMEOUT"] = "7s"
    for number in range(1, 12):
        environment[f"REGISTRY_NOTIFICATIONS_ENDPOINTS_{number}_NAME"] = f"n{number}"
        environment[f"REGISTRY_NOTIFICATIONS_ENDPOINTS_{number}_URL"] = f"http://n{number}"
    environment["REGISTRY_NOTIFICATIONS_ENDPOINTS_11_IGNORE_ACTIONS_0"] = "pull"
    endpoints = load(written(ENDPOINT)).notifications.endpoints
    assert [each.name for each in endpoints] == ["a", *(f"n{number}" for number in range(1, 12))]
    assert (endpoints[0].timeout, endpoints[0].url) == (timedelta(seconds=7), "http://a")
    assert endpoints[11].ignore.actions == ("pull",)


def test_maps_take_new_keys_and_know_old_ones_in_any_case(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_LOG_FIELDS_SERVICE"] = "mine"
    environment["REGISTRY_LOG_FIELDS_PLACE_RACK"] = "7"
    environment["REGISTRY_HTTP_HEADERS_X-CONTENT-TYPE-OPTIONS"] = "[other]"
    environment["REGISTRY_HTTP_HEADERS_Access-Control-Allow-Origin"] = "['*']"
    settings = load(written(IMAGE))
    assert settings.log.fields == {"service": "mine", "place": {"rack": 7}}
    assert settings.http.headers == {"X-Content-Type-Options": ("other",), "access-control-allow-origin": ("*",)}


def test_headers_of_an_endpoint_may_be_given(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_NOTIFICATIONS_ENDPOINTS_0_HEADERS_AUTHORIZATION"] = "[Bearer x]"
    headers = load(written(ENDPOINT)).notifications.endpoints[0].headers
    assert {name: values[0].get_secret_value() for name, values in headers.items()} == {
        "X-Key": "k",
        "authorization": "Bearer x",
    }


def test_distributions_own_names_are_known_beside_the_files(environment: MutableMapping[str, str]) -> None:
    environment["REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES"] = "true"
    environment["REGISTRY_HEALTH_FILECHECKERS_0_FILE"] = "/down"
    environment["REGISTRY_HEALTH_TCP_0_ADDR"] = "localhost:1"
    settings = load()
    assert settings.notifications.events.includereferences
    assert settings.health.file[0].file == Path("/down")
    assert settings.health.tcp[0].addr == "localhost:1"


def test_an_empty_variable_takes_the_value_away_and_tells_so(
    written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_HTTP_SECRET"] = ""
    environment["REGISTRY_HTTP_HOST"] = " "
    environment["REGISTRY_PROXY_REMOTEURL"] = ""
    environment["REGISTRY_LOG_FIELDS"] = ""
    file = written(FULL)
    found = read(file)
    http = found.in_force().http
    assert (http.secret, http.host, http.relativeurls) == (None, None, True)
    assert [remark.text for remark in found.remarks if "is empty" in remark.text] == [
        f"REGISTRY_HTTP_HOST: is empty, so http.host of {file}:11 does not count",
        f"REGISTRY_HTTP_SECRET: is empty, so http.secret of {file}:11 does not count",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_FOO",
        "REGISTRY_",
        "REGISTRY__",
        "REGISTRY_http_addr",
        "REGISTRY_HTTP_ADR",
        "REGISTRY_HTTP_ADDR_PORT",
        "REGISTRY_HTTP_TLS_CLIENTCAS_FIRST",
        "REGISTRY_LOG_FIELDS_",
        "REGISTRY_STORAGE_FILESYSTEM_ROOT",
    ],
)
def test_an_unknown_variable_only_warns(environment: MutableMapping[str, str], name: str) -> None:
    before = load()
    environment[name] = "x"
    found = read()
    assert found.in_force() == before
    assert [remark.text for remark in found.remarks] == [f"{name}: no setting of this name, it is ignored"]


def test_variables_of_others_are_not_even_told(environment: MutableMapping[str, str]) -> None:
    """What Kubernetes makes for a service called "registry", and podman's."""
    environment["REGISTRY_PORT"] = "tcp://10.0.0.1:5000"
    environment["REGISTRY_PORT_5000_TCP"] = "tcp://10.0.0.1:5000"
    environment["REGISTRY_PORT_5000_TCP_ADDR"] = "10.0.0.1"
    environment["REGISTRY_SERVICE_HOST"] = "10.0.0.1"
    environment["REGISTRY_SERVICE_PORT_HTTP"] = "5000"
    environment["REGISTRY_AUTH_FILE"] = "/root/auth.json"
    assert read().remarks == ()
    assert load().http.bound_port == 5000


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("REGISTRY_HTTP_ADDR", "nowhere", "REGISTRY_HTTP_ADDR: http.addr: expected HOST:PORT"),
        ("REGISTRY_LOG_LEVEL", "loud", "REGISTRY_LOG_LEVEL: log.level: expected 'error', 'warn', 'info' or 'debug'"),
        ("REGISTRY_STORAGE_DELETE_ENABLED", "maybe", "storage.delete.enabled: expected true or false, got 'maybe'"),
        ("REGISTRY_STORAGE", "s3", "REGISTRY_STORAGE: storage.s3: this driver is not built yet"),
        (
            "REGISTRY_STORAGE",
            "",
            "REGISTRY_STORAGE: storage: expected one driver, filesystem or inmemory; none is given",
        ),
        ("REGISTRY_STORAGE_S3_BUCKET", "b", "given are filesystem (default) and s3 (REGISTRY_STORAGE_S3_BUCKET)"),
        ("REGISTRY_STORAGE_FILESYTEM_ROOTDIRECTORY", "/x", "filesytem (REGISTRY_STORAGE_FILESYTEM_ROOTDIRECTORY)"),
        ("REGISTRY_AUTH", "htpasswd", "REGISTRY_AUTH: auth.htpasswd.path: is missing"),
        ("REGISTRY_AUTH", "silly", "REGISTRY_AUTH: auth.silly: a kind for tests"),
        ("REGISTRY_AUTH_HTPASWD_PATH", "/x", "REGISTRY_AUTH_HTPASWD_PATH: auth.htpaswd: unknown key, did you mean"),
        ("REGISTRY_HTTP_TLS_CLIENTCAS_1", "/x", "http.tls.clientcas: has 0 entries, expected an index from 0 to 0"),
        ("REGISTRY_NOTIFICATIONS_ENDPOINTS_2_NAME", "x", "notifications.endpoints: has 0 entries"),
        ("REGISTRY_HTTP_HEADERS", "[", "REGISTRY_HTTP_HEADERS: no YAML: "),
        ("REGISTRY_HTTP", "nonsense", "REGISTRY_HTTP: http: expected keys and values"),
        ("REGISTRY_VERSION", "0.2", "REGISTRY_VERSION: version: expected '0.1', got '0.2'"),
    ],
)
def test_a_mistake_in_a_variable_is_told_with_its_name(
    environment: MutableMapping[str, str], name: str, value: str, told: str
) -> None:
    environment[name] = value
    assert told in "\n".join(read().mistakes)


KEYS = [key for key in keys(Settings) if key.path not in ("version", "loglevel", "storage.inmemory")]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
SCALAR = st.one_of(
    st.booleans(),
    st.integers(-5, 10**10),
    st.sampled_from(["10s", "1h30m", "https://example.com", "all", "text", "info", ":80", "/path", "pull", "tls1.3"]),
    TEXT,
)
LIST = st.lists(TEXT, max_size=2)


@given(st.data(), st.sampled_from(KEYS))
@settings(max_examples=300, deadline=None)
def test_any_setting_can_be_set_by_a_variable_and_is_what_the_file_would_make_of_it(
    scratch: Path, data: st.DataObject, key: Key
) -> None:
    value = data.draw(SCALAR if key.shape.kind == "value" else SCALAR | LIST)
    words = key.path.replace("[]", ".0").replace("NAME", "name").split(".")
    by_file = _outcome(scratch, _below(yaml.safe_load(LEAST), words, value), {})
    name = "REGISTRY_" + "_".join(words).upper()
    by_variable = _outcome(scratch, yaml.safe_load(LEAST), {name: yaml.safe_dump(value, allow_unicode=True)})
    assert by_variable == by_file


WORD = st.sampled_from(sorted({word.strip("[]").upper() for key in keys(Settings) for word in key.path.split(".")}))

WORDS = st.lists(WORD | st.sampled_from(["0", "1", "", "é"]), min_size=1, max_size=5).map("_".join)


@given(st.dictionaries(WORDS, SCALAR.map(str)))
@settings(max_examples=300, deadline=None)
def test_no_variables_lead_to_a_traceback(given: dict[str, str]) -> None:
    given = {f"REGISTRY_{name}": text for name, text in given.items()}
    os.environ.update(given)
    try:
        found = read()
    finally:
        for name in given:
            del os.environ[name]
    assert (found.settings is None) == bool(found.mistakes)
    assert all(line.isprintable() for line in (*found.mistakes, *(each.text for each in found.remarks)))


def _below(whole: dict[str, Any], words: list[str], value: Any) -> dict[str, Any]:
    if words[0] == "storage":
        whole["storage"] = {"filesystem": {}}
    here: Any = whole
    for word, after in zip(words, [*words[1:], None], strict=True):
        below: Any = value if after is None else [] if after == "0" else {}
        if isinstance(here, list):
            here.append(below)
            here = here[0]
        elif after is None:
            here[word] = value
        else:
            here = here.setdefault(word, below)
    return whole


def _outcome(file: Path, values: Mapping[str, Any], variables: Mapping[str, str]) -> object:
    """The settings, or the mistakes without where they stand."""
    file.write_text(yaml.safe_dump(values, allow_unicode=True))
    os.environ.update(variables)
    try:
        found: Configuration = read(file)
    finally:
        for name in variables:
            del os.environ[name]
    assert all("is not served" in remark.text for remark in found.remarks)
    return found.settings or sorted(re.sub(r"^\S+: ", "", line) for line in found.mistakes)
