"""`registry access check`, and what is said before anything listens."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from registry.auth import composition
from registry.auth.watched import read_small
from registry.cli import app
from registry.config import ConfigError, Settings
from tests.support.callers import htpasswd, settings
from tests.support.source import ROOT

RULES = """\
groups:
  dev: user:alice
rules:
  - who: anyone
    allow: pull
    repositories: "public/**"
  - {who: [group:dev, robot:ci], allow: [pull, push]}
  - {who: user:bob, deny: push, repositories: team/app}
"""


NOTE = "note: bob cannot log in: htpasswd has no usable password of that name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    htpasswd(tmp_path / "htpasswd", alice="secret")
    return tmp_path


def config(folder: Path, access: str = "", auth: bool = True) -> Path:
    text = "version: 0.1\nstorage: {inmemory: {}}\n"
    if auth:
        text += f"auth: {{htpasswd: {{path: {folder / 'htpasswd'}}}}}\n"
    if access:
        text += "layerhouse:\n  access:\n" + "".join(f"    {line}\n" for line in access.splitlines())
    file = folder / "config.yml"
    file.write_text(text)
    return file


def check(file: Path, words: str) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["access", "check", *words.split(), "--config", str(file)])
    return told.exit_code, (told.stdout or told.stderr).replace(f"{file.parent}/", "")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (
            "anonymous public/x pull",
            0,
            "allowed: FIRST:4 anonymous, public/x and pull",
        ),
        ("anonymous public/x push", 1, "denied: no rule fits anonymous, public/x and push"),
        (
            "alice team/app push",
            0,
            "allowed: FIRST:7 user:alice (of group:dev), team/app and push",
        ),
        (
            "robot:ci team/app push",
            0,
            "allowed: FIRST:7 robot:ci, team/app and push",
        ),
        (
            "bob team/app push",
            1,
            f"denied: FIRST:8 user:bob, team/app and push\n{NOTE}",
        ),
        ("certificate:h team/app admin", 1, "denied: no rule fits certificate:h, team/app and admin"),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_the_rule_that_decides_is_named(folder: Path, words: str, status: int, told: str, apart: bool) -> None:
    if apart:
        (folder / "access.yml").write_text(RULES)
        file, name, offset = config(folder, f"file: {folder}/access.yml"), "access.yml", 0
    else:
        file, name, offset = config(folder, RULES), "config.yml", 5
    for line in (4, 7, 8):
        told = told.replace(f"FIRST:{line}", f"the rule at {name}:{line + offset} is the first that fits")
    assert check(file, words) == (status, f"{told}\n")


@pytest.mark.parametrize(
    ("auth", "words", "status", "told"),
    [
        (True, "alice x push", 0, "allowed: there are no access rules, and without them whoever is authenticated may"),
        (True, "anonymous x pull", 1, "denied: there are no access rules, and without them whoever is not may do noth"),
        (
            False,
            "anonymous x pull",
            0,
            "allowed: neither auth nor access rules are configured, so anyone may do",
        ),
    ],
)
def test_without_rules_it_says_what_holds_then(folder: Path, auth: bool, words: str, status: int, told: str) -> None:
    found, line = check(config(folder, auth=auth), words)
    assert found == status
    assert line.startswith(told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "group:dev x pull",
            "registry: 'group:dev': expected a user's name, robot:NAME, certificate:NAME or",
        ),
        ("user: x pull", "registry: 'user:': expected a user's name"),
        ("alice X pull", "registry: invalid repository name 'X'"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_line(folder: Path, words: str, told: str) -> None:
    status, line = check(config(folder), words)
    assert status == 1
    assert line.startswith(told)


def test_mistakes_name_the_line_and_the_key(folder: Path) -> None:
    _, line = check(config(folder, RULES.replace("allow: pull", "allow: pul")), "alice x pull")
    assert line.startswith("registry: config.yml:10: layerhouse.access.rules[0].allow")
    assert "'pull', 'push', 'delete' or 'admin'" in line


def test_every_example_of_the_documentation_is_a_configuration() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "access.md").read_text(), re.DOTALL)
    found = [Settings.model_validate({"storage": {"inmemory": {}}, **yaml.safe_load(each)}) for each in examples]
    assert [each.layerhouse.access.is_given for each in found] == [False, False, True, True, True]


def said(caplog: pytest.LogCaptureFixture, **sections: Any) -> str:
    composition.check(settings(**sections))
    return caplog.text


@pytest.mark.parametrize("addr", [":5000", "0.0.0.0:5000", "[::]:5000", "registry.example.com:5000", "192.0.2.1:5000"])
def test_a_registry_that_stands_open_says_so(addr: str, caplog: pytest.LogCaptureFixture) -> None:
    told = said(caplog, http={"addr": addr})
    assert f"anyone who reaches {addr} can pull, push and overwrite: neither auth nor layerhouse.access is set" in told
    readonly = {"maintenance": {"readonly": {"enabled": True}}}
    assert f"anyone who reaches {addr} can pull: " in said(caplog, http={"addr": addr}, storage=readonly)


@pytest.mark.parametrize(
    "http",
    [{"addr": "127.0.0.1:5000"}, {"addr": "localhost:5000"}, {"addr": "[::1]:5000"}, {"addr": "/s", "net": "unix"}],
)
def test_one_that_only_this_machine_reaches_says_nothing(
    http: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert said(caplog, http=http) == ""


def test_one_that_asks_who_comes_says_only_who_cannot_log_in(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "htpasswd").write_text("alice:plain\n")
    assert "user 'alice' cannot log in" in said(caplog, passwords=folder / "htpasswd", http={"addr": ":5000"})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    caplog.clear()
    assert said(caplog, access={"rules": [{"who": "anyone", "allow": "pull"}]}, http={"addr": ":5000"}) == ""


def test_what_cannot_be_used_is_told_before_anything_listens(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^auth\.htpasswd\.path: nowhere: no such file; add a user with"):
        composition.check(settings(Path("nowhere")))
    with pytest.raises(ConfigError, match=r"nowhere: No such file"):
        composition.check(settings(access={"file": "nowhere"}))
    with pytest.raises(ConfigError, match=r"certificates: expected http\.tls\.clientcas"):
        composition.check(settings(access={"certificates": True}))


def test_a_file_that_is_far_too_long_is_not_read(folder: Path) -> None:
    with (folder / "long").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(ConfigError, match="longer than 16 MiB"):
        read_small(folder / "long")
