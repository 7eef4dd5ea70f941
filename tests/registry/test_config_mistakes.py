"""What is said of a configuration that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.config import ConfigError, Settings, load, read
from registry.config.schema import keys
from tests.registry.test_config import FULL, LEAST, environment, scratch, written

__all__ = ["environment", "scratch", "written"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ": version: expected keys and values, with version: 0.1"),
        ("[]", ": version: expected keys and values, with version: 0.1"),
        ("storage: filesystem", ": version: expected keys and values, with version: 0.1"),
        ("version: 0.2\nstorage: filesystem", ":1: version: expected '0.1', got '0.2'"),
        ("version:\nstorage: filesystem\nversion: 0.1", ":3: 'version': given twice, first in line 1"),
        (f"{LEAST}http: [", ":3: no YAML: "),
        (f"{LEAST}http: {{a: b: c}}", ":3: no YAML: "),
        ("\x01", ":1: no YAML: special characters are not allowed"),
        (f"{LEAST}---\na: b", ":3: no YAML: "),
        (f"{LEAST}log: &a {{fields: *a}}", ":3: an alias that holds itself"),
        (f"{LEAST}? [a]\n: b", ":3: expected a name before the colon"),
        (f"{LEAST}log: {{<<: [a]}}", ":3: expected an alias of a mapping after <<"),
        (f"{LEAST}http: *none", ":3: no YAML: found undefined alias 'none'"),
        (f"{LEAST}http: nonsense", ":3: http: expected keys and values"),
        (f"{LEAST}http:\n  addr: 5000", ":4: http.addr: expected HOST:PORT, like 127.0.0.1:5000, got '5000'"),
        (f"{LEAST}http: {{addr: '::1:5000'}}", ":3: http.addr: "),
        (f"{LEAST}http: {{addr: 'host:65536'}}", ":3: http.addr: "),
        (f"{LEAST}http: {{addr: 'host:http'}}", ":3: http.addr: "),
        (f"{LEAST}http: {{addr: [a]}}", ":3: http.addr: expected text"),
        (f"{LEAST}log: {{level: loud}}", ":3: log.level: expected 'error', 'warn', 'info' or 'debug', got 'loud'"),
        (f"{LEAST}log: {{level: 3}}", ":3: log.level: "),
        (f"{LEAST}log: {{fields: text}}", ":3: log.fields: expected keys and values"),
        (f"{LEAST}notifications: {{endpoints: {{name: a}}}}", ":3: notifications.endpoints: expected a list"),
        (f"{LEAST}notifications:\n  endpoints:\n  - {{name: a}}", ":5: notifications.endpoints[0].url: is missing"),
        (f"{LEAST}catalog: {{maxentries: many}}", ":3: catalog.maxentries: expected a whole number, got 'many'"),
        (f"{LEAST}tags: {{maxtags: -1}}", ":3: tags.maxtags: expected "),
        (f"{LEAST}layerhouse: {{workers: 65}}", ":3: layerhouse.workers: expected at most 64, got '65'"),
        (f"{LEAST}layerhouse: {{workers: 0}}", ":3: layerhouse.workers: expected more than 0, got '0'"),
        (f"{LEAST}auth:\n  htpasswd: {{realm: r}}", ":4: auth.htpasswd.path: is missing"),
        (f"{LEAST}auth:\n  htpasswd:", ":4: auth.htpasswd.path: is missing"),
        ("version: 0.1\nstorage: {delete: {enabled: perhaps}, filesystem: }", "expected true or false, got 'perhaps'"),
        ("version: 0.1\nstorage: {filesystem: {rootdirectory: [a]}}", ":2: storage.filesystem.rootdirectory: "),
        ("version: 0.1\nstorage: [filesystem]", ":2: storage: expected keys and values"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_what_was_expected(
    written: Callable[[str], Path], text: str, told: str
) -> None:
    file = written(text)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert error.value.message.startswith(f"{file}:")
    assert told in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10", "; 10 alone is 10 nanoseconds, as in Distribution"),
        ("1 week", ", got '1 week'"),
        ("-1s", ", got '-1s'"),
        ("'10:00'", ", got '10:00'"),
        (".inf", ", got '.inf'"),
        ("5x", ", got '5x'"),
    ],
)
def test_a_time_that_is_none_is_told_with_how_one_looks(written: Callable[[str], Path], text: str, told: str) -> None:
    file = written(f"{LEAST}http: {{draintimeout: {text}}}")
    expected = "expected a time with its unit, like 30s or 1h30m"
    assert read(file).mistakes == (f"{file}:3: http.draintimeout: {expected}{told}",)
    assert "calendar" in read(written(f"{LEAST}http: {{draintimeout: 99999999999999h}}")).mistakes[0]
    assert "P1Y" in read(written(f"{LEAST}http: {{draintimeout: P1Y!}}")).mistakes[0]


def test_an_interval_of_nothing_is_refused(written: Callable[[str], Path]) -> None:
    text = "version: 0.1\nstorage: {filesystem: , maintenance: {uploadpurging: {interval: 0}}}"
    (told,) = read(written(text)).mistakes
    assert told.endswith("storage.maintenance.uploadpurging.interval: expected more than 0 seconds, got '0'")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("htttp: {}", ":3: htttp: unknown key, did you mean http?"),
        ("log: {Level: info}", ":3: log.Level: unknown key, did you mean level?"),
        ("http:\n  tls:\n    certifcate: /x", ":5: http.tls.certifcate: unknown key, did you mean certificate?"),
        ("delete: {enabled: true}", ":3: delete: unknown key, did you mean storage.delete?"),
        ("uploadpurging:", ":3: uploadpurging: unknown key, did you mean storage.maintenance.uploadpurging?"),
        ("addr: :5000", ":3: addr: unknown key"),
        ("catalog: {n: 1}", ":3: catalog.n: unknown key, expected maxentries"),
        ("auth: {basic: {}}", ":3: auth.basic: unknown key, expected none, htpasswd or token"),
        ("1: x", ":3: 1: unknown key"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(
    written: Callable[[str], Path], text: str, told: str
) -> None:
    file = written(f"{LEAST}{text}")
    assert read(file).mistakes == (f"{file}{told}",)


@pytest.mark.parametrize("driver", ["s3", "azure", "gcs", "swift", "oss"])
def test_a_driver_that_is_not_built_is_told_with_those_that_are(written: Callable[[str], Path], driver: str) -> None:
    file = written(f"version: 0.1\nstorage:\n  {driver}: {{secretkey: hush, bucket: b}}\n  delete: {{enabled: true}}\n")
    told = "this driver is not built yet, expected filesystem or inmemory"
    assert read(file).mistakes == (f"{file}:3: storage.{driver}: {told}",)
    file = written(f"version: 0.1\nstorage: {driver}")
    assert read(file).mistakes == (f"{file}:2: storage.{driver}: {told}",)


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("", "storage: expected one driver, filesystem or inmemory; none is given"),
        ("storage: {delete: {enabled: true}}", "storage: expected one driver, filesystem or inmemory; none is given"),
        ("storage:", "storage: expected one driver, filesystem or inmemory; none is given"),
        ("storage: {filesystem: , inmemory: }", "given are filesystem (%:2) and inmemory (%:2)"),
        ("storage: {filesystem: , s3: {bucket: b}}", "given are filesystem (%:2) and s3 (%:2)"),
    ],
)
def test_there_is_exactly_one_driver(written: Callable[[str], Path], storage: str, told: str) -> None:
    file = written(f"version: 0.1\n{storage}")
    assert told.replace("%", str(file)) in "\n".join(read(file).mistakes)


def test_a_kind_of_authentication_for_tests_is_refused(written: Callable[[str], Path]) -> None:
    assert (
        "auth.silly: a kind for tests" in read(written(f"{LEAST}auth: {{silly: {{realm: r, service: s}}}}")).mistakes[0]
    )


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(written: Callable[[str], Path]) -> None:
    file = written(
        "version: 0.1\nhttp:\n  adr: x\n  relativeurls: perhaps\nlog: {level: loud}\n"
        "storage: {filesystem: {root: /x}}\n"
    )
    with pytest.raises(ConfigError) as error:
        load(file, workers=100)
    lines = error.value.message.splitlines()
    assert [line.removeprefix(f"{file}:").split(": ")[:2] for line in lines] == [
        ["--workers", "layerhouse.workers"],
        ["3", "http.adr"],
        ["4", "http.relativeurls"],
        ["5", "log.level"],
        ["6", "storage.filesystem.root"],
    ]
    file = written("version: 0.1\nlog:\nlog:\nhttp: {addr: a, addr: b}\n")
    assert len(read(file).mistakes) == 2


def test_a_mistake_on_the_command_line_is_told_as_one(written: Callable[[str], Path]) -> None:
    for file in (None, written(FULL)):
        with pytest.raises(ConfigError, match=r"^--addr: http\.addr: "):
            load(file, addr="nowhere")
        with pytest.raises(ConfigError, match=r"^--workers: layerhouse\.workers: .*, got '65'$"):
            load(file, workers=65)
    assert "inmemory" in read(written("version: 0.1\nstorage: inmemory"), root=Path("r")).mistakes[0]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: No such file or directory$"):
        load(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "proxy: {remoteurl: 'https://u:hush@example.com', ttl: x, password: [hush]}",
        "proxy: {password: {a: hush}, username: u, remoteurl: https://example.com}",
        "http: {secret: [hush]}",
        "notifications: {endpoints: [{name: a, url: 'http://a', headers: {Authorization: {a: hush}}}]}",
        "notifications: {endpoints: [{name: a, url: 'ftp://u:hush@a'}]}",
        "http: {addr: 'http://u:hush@a:1'}",
        "catalog: {maxentries: 'http://u:hush@a:1'}",
        "redis: [hush]",
        "auth: {htpassword: hush}",
        "hush: &a [*a]",
    ],
)
def test_secrets_are_never_in_an_error(written: Callable[[str], Path], text: str) -> None:
    mistakes = read(written(f"{LEAST}{text}")).mistakes
    assert mistakes
    if not text.startswith("hush") and "addr" not in text:
        assert "hush" not in "".join(mistakes)


def test_endless_documents_are_refused(written: Callable[[str], Path]) -> None:
    bomb = "".join(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    told = "expected at most 100000 values, nested at most 50 deep"
    assert told in read(written(f"{LEAST}log:\n fields:\n  a0: &a0 x\n{bomb}")).mistakes[0]
    assert told in read(written(f"{LEAST}log: {'[' * 60}{']' * 60}")).mistakes[0]
    assert "nested too deeply" in read(written(f"{LEAST}log: {'[' * 5000}")).mistakes[0]


WORDS = sorted({word.replace("[]", "") for key in keys(Settings) for word in key.path.split(".")})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), below),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(Settings.model_fields)), VALUES))
@settings(max_examples=300, deadline=None)
def test_no_keys_and_values_lead_to_a_traceback(scratch: Path, values: dict[str, object]) -> None:
    _reads(scratch, yaml.safe_dump({"version": 0.1, **values}, allow_unicode=True).encode())


@given(st.binary(max_size=60) | st.text("{}[]:,-?*&!|>'\"%@`#\n\t 01abn~<=.x", max_size=60).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_no_bytes_lead_to_a_traceback(scratch: Path, content: bytes) -> None:
    _reads(scratch, content)
    _reads(scratch, b"version: 0.1\nstorage: filesystem\nlog: " + content)


def _reads(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    found = read(file)
    assert (found.settings is None) == bool(found.mistakes)
    assert all(line.startswith(str(file)) and line.isprintable() for line in found.mistakes)
