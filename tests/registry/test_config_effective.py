"""`registry config` and `registry check-config`, and the page that lists every key."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, MutableMapping
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from registry.cli import app
from registry.config import Settings, load, read
from registry.config.effective import HIDDEN, effective, to_json, to_yaml
from registry.config.reference import meaning, tables
from registry.config.schema import keys
from registry.config.values import go_duration
from tests.registry.test_config import FULL, IMAGE, LEAST, environment, written

__all__ = ["environment", "written"]

WHOLE = f"""{FULL.strip()}
auth:
  htpasswd: {{realm: r, path: /etc/htpasswd}}
notifications:
  endpoints:
  - {{name: a, url: 'http://a/?q=1#x', headers: {{Authorization: [Bearer hush, other]}}, timeout: 1500ms}}
  - name: b: c
    url: https://u:hush@b
health:
  file: [{{file: '/x: y'}}]
  http: [{{uri: 'http://a', headers: {{A: b}}}}]
proxy: {{remoteurl: 'https://u:hush@example.com', password: hush, ttl: 0}}
redis: {{addrs: [a, b], password: hush, tls: {{key: hush}}}}
middleware: {{storage: [{{name: cloudfront, options: {{privatekey: hush}}}}]}}
policy: {{repository: {{classes: [image, '', '1.10', 'yes']}}}}
""".replace("name: b: c", "name: 'b: c'")


@pytest.mark.parametrize("text", [LEAST, IMAGE, FULL, "version: 0.1\nstorage: inmemory\nauth: none\n", None])
@pytest.mark.parametrize("defaults", [True, False])
def test_what_is_printed_loads_to_the_same(
    tmp_path: Path, written: Callable[[str], Path], text: str | None, defaults: bool
) -> None:
    if text is None and not defaults:
        return  # nothing was given
    found = read(written(text) if text else None)
    again = tmp_path / "again.yml"
    again.write_text("\n".join(to_yaml(effective(found, defaults=defaults))).replace(HIDDEN, "asecret"))
    assert load(again) == found.settings


def test_the_whole_is_printed_with_sources_and_without_secrets(
    tmp_path: Path, written: Callable[[str], Path], environment: MutableMapping[str, str]
) -> None:
    environment["REGISTRY_LOG_LEVEL"] = "warn"
    environment["REGISTRY_POLICY_REPOSITORY_CLASSES_0"] = "plugin"
    file = written(WHOLE)
    found = read(file, addr="127.0.0.1:7")
    lines = list(to_yaml(effective(found)))
    text = "\n".join(lines)
    assert "hush" not in text
    told = {line.strip().split("  ")[0]: line.rpartition("  # ")[2] for line in lines if "  # " in line}
    assert told["level: warn"] == "REGISTRY_LOG_LEVEL"
    assert told["addr: 127.0.0.1:7"] == "--addr"
    assert told["age: 24h"] == f"{file}:8"
    assert told["timeout: 1.5s"] == f"{file}:18"
    assert told["secret: <hidden>"] == f"{file}:10"
    assert told["classes: [plugin, '', '1.10', 'yes']"] == f"REGISTRY_POLICY_REPOSITORY_CLASSES_0, {file}:27"
    assert told["- name: a"] == f"{file}:18"
    assert told["prefix: /"] == "default"
    again = tmp_path / "again.yml"
    again.write_text(text)
    settings, before = load(again), found.in_force()
    assert (settings.http.addr, settings.policy, settings.health.file) == (
        "127.0.0.1:7",
        before.policy,
        before.health.file,
    )
    assert [each.name for each in settings.notifications.endpoints] == ["a", "b: c"]


def test_programs_get_values_and_sources(written: Callable[[str], Path]) -> None:
    file = written(WHOLE)
    told = to_json(effective(read(file)))
    assert json.loads(json.dumps(told)) == told
    assert told["settings"]["http"]["addr"] == "0.0.0.0:5001"
    assert told["sources"]["http.addr"] == f"{file}:10"
    assert told["sources"]["notifications.endpoints[1].url"] == f"{file}:20"
    assert told["sources"]["layerhouse.trustedproxies"] == "default"
    assert told["settings"]["notifications"]["endpoints"][1]["url"] == "https://u:<hidden>@b"


def test_every_default_that_is_printed_is_the_default(tmp_path: Path, written: Callable[[str], Path]) -> None:
    """Each alone, in a file of its own, changes nothing."""
    default, whole = Settings(), yaml.safe_load("\n".join(to_yaml(effective(read(written(LEAST))))))
    paths = [
        key.path.split(".") for key in keys(Settings) if "[]" not in key.path and not key.path.startswith("storage.")
    ]
    for words in paths:
        value = whole
        for word in words:
            value = value.get(word) if isinstance(value, dict) else None
        if value is not None:
            below = value
            for word in reversed(words):
                below = {word: below}
            file = tmp_path / "one.yml"
            file.write_text(yaml.safe_dump({"version": "0.1", "storage": "filesystem", **below}))
            assert load(file) == default, words


@pytest.mark.parametrize("text", ["0s", "1ms", "0.5s", "1.5s", "30s", "1m", "1h", "168h", "1h30m", "26h3m4.000005s"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    duration = Settings.model_validate({"http": {"draintimeout": text}}).http.draintimeout
    again = Settings.model_validate({"http": {"draintimeout": go_duration(duration)}}).http.draintimeout
    assert again == duration
    assert go_duration(duration) == text.replace("1ms", "0.001s")


def test_lists_and_mappings_of_any_depth_are_printed(tmp_path: Path, written: Callable[[str], Path]) -> None:
    fields = "{a: [1, {b: c, d: []}, [2, {e: ~}]], 'odd: key': 'yes', 'f#': {}, n: 1.5, t: 2024-01-01}"
    found = read(written(f"{LEAST}log: {{fields: {fields}}}\nproxy: {{exec: {{command: c, lifetime: 1h}}}}"))
    again = tmp_path / "again.yml"
    again.write_text("\n".join(to_yaml(effective(found, defaults=False))))
    assert load(again) == found.settings
    assert found.in_force().log.fields["a"] == [1, {"b": "c", "d": []}, [2, {"e": None}]]


def test_the_log_is_told_what_is_not_served(
    written: Callable[[str], Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("registry"), "propagate", True)
    caplog.set_level("INFO", "registry")
    read(written(f"{IMAGE}redis: {{addr: a}}\n")).announce()
    # A record comes twice where another test left pytest's handler with both loggers.
    told = dict.fromkeys((each.levelname, each.message.split(": ")[1]) for each in caplog.records)
    assert list(told) == [("INFO", "storage.cache.blobdescriptor"), ("WARNING", "redis")]


def test_the_page_of_keys_has_a_line_for_each() -> None:
    page = "\n".join(tables())
    assert [key.path for key in keys(Settings) if f"\n| `{key.path}` | " not in page] == []
    line = "| `storage.maintenance.uploadpurging.age` | time | `168h` | How old they are by then. |"
    assert line in page
    assert "| `notifications.endpoints[].ignore.actions` | list of `pull`, `push`, `mount`, `delete` |  |" in page
    assert "| `proxy.exec.command` | text | required | The program. Not served: no program is run" in page


def test_every_key_says_what_it_does() -> None:
    assert [key.path for key in keys(Settings) if not meaning(key)] == []


def test_the_commands(written: Callable[[str], Path]) -> None:
    run = CliRunner()
    fine, bad = written(LEAST), written(LEAST).with_name("bad.yml")
    bad.write_text(f"{LEAST}htttp: {{}}\nlog: {{level: loud}}\nredis: {{addr: a}}\nstorage: {{}}\n")
    told = run.invoke(app, ["check-config", str(fine)])
    assert (told.exit_code, told.stdout) == (0, f"{fine}: fine\n")
    told = run.invoke(app, ["check-config", str(bad)])
    assert (told.exit_code, told.stdout) == (1, f"{bad}:6: 'storage': given twice, first in line 2\n")
    bad.write_text(f"{LEAST}htttp: {{}}\nlog: {{level: loud}}\nredis: {{addr: a}}\n")
    told = run.invoke(app, ["check-config", str(bad)])
    assert told.exit_code == 1
    assert [line.split(": ")[:2] for line in told.stdout.splitlines()] == [
        [f"{bad}:3", "htttp"],
        [f"{bad}:4", "log.level"],
        ["warning", f"{bad}:5"],
    ]
    told = run.invoke(app, ["config", str(bad)])
    assert told.exit_code == 1
    assert [line.startswith(f"registry: {bad}:") for line in told.stderr.splitlines()] == [True, True]
    told = run.invoke(app, ["config", "--no-defaults", str(fine)])
    assert told.stdout == f"version: '0.1'    # {fine}:1\nstorage:\n  filesystem: {{}}  # {fine}:2\n"
    assert json.loads(run.invoke(app, ["config", "--json"]).stdout)["sources"]["http.addr"] == "default"
    assert "defaults: fine" in run.invoke(app, ["check-config"]).stdout
