"""What `docs/security.md` says is so: each test that it names is there, each CVE has one, and its example is one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from registry.auth import composition
from registry.config import load
from tests.support.callers import htpasswd
from tests.support.source import ROOT

DOCUMENT = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", DOCUMENT)))
_CVE = re.compile(r"CVE[-_](\d{4})[-_](\d+)", re.IGNORECASE)


def functions(file: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)}


def cves(text: str) -> set[str]:
    return {f"CVE-{year}-{number}" for year, number in _CVE.findall(text)}


@pytest.mark.parametrize(("path", "function"), NAMED, ids=lambda text: text)
def test_each_test_that_is_named_is_there(path: str, function: str) -> None:
    file = ROOT / path
    assert file.exists()
    assert not function or function in functions(file)


def test_each_cve_has_a_test_and_each_test_of_a_cve_is_told() -> None:
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| CVE-")]
    assert all(re.search(r"`tests/\S+::test_\w+` \|$", row) for row in rows)
    told = set().union(*(cves(row.split("|")[1]) for row in rows))
    assert cves(DOCUMENT) == told
    files = [*(ROOT / "tests" / "registry").rglob("test_*.py")]
    tested = set().union(*(cves(" ".join(functions(file))) for file in files))
    assert tested <= told
    for row in rows:
        (cve,), function = cves(row.split("|")[1]), row.rpartition("::")[2]
        assert cve in cves(function) or cve not in tested, "its own test is named"


def test_nothing_listens_beyond_this_machine_unless_somebody_says_so() -> None:
    assert load().http.bound_host == "127.0.0.1"


def test_the_example_is_a_configuration_that_can_be_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (example,) = re.findall(r"```yaml\n(version:.*?)```", DOCUMENT, re.DOTALL)
    passwords = htpasswd(tmp_path / "htpasswd", alice="1")
    given = example.replace("/auth/htpasswd", str(passwords)).replace("/var/lib/registry", str(tmp_path / "root"))
    (tmp_path / "config.yml").write_text(given)
    settings = load(tmp_path / "config.yml")
    composition.check(settings)
    assert not caplog.records
    assert settings.layerhouse.access.is_given


@pytest.mark.parametrize("addr", [":5000", "0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000"])
def test_a_registry_that_anybody_may_write_to_says_so(
    tmp_path: Path, addr: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.yml").write_text(f"version: 0.1\nstorage: {{inmemory: }}\nhttp: {{addr: '{addr}'}}\n")
    composition.check(load(tmp_path / "config.yml"))
    assert "anyone who reaches" in caplog.text
    caplog.clear()
    composition.check(load(tmp_path / "config.yml", addr="127.0.0.1:5000"))
    assert caplog.text == ""
