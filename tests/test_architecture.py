"""The rules of the house that a reader relies on; `docs/design.md` gives their reasons."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from fnmatch import fnmatch

import pytest

from tests.support.source import ROOT, modules

MODULES = modules()

# Where a library may be met; everywhere else the project speaks its own words.
HOMES = {
    "fastapi": ["registry/app.py", "registry/api/*", "registry/ui/*"],
    "starlette": ["registry/app.py", "registry/api/*", "registry/ui/*"],
    "httpx": [
        "client/wire/transport.py",
        "client/wire/network.py",
        "client/wire/connection.py",
        "registry/outgoing.py",
    ],
    "httpcore": ["client/wire/transport.py", "client/wire/network.py", "client/wire/connection.py"],
    "uvicorn": ["registry/serving/*"],
    "structlog": ["registry/observing/logs.py"],
    "prometheus_client": ["registry/observing/metrics.py"],
    "bcrypt": ["registry/auth/*"],
    "jwt": ["registry/auth/*"],
    "cryptography": ["registry/auth/*", "registry/serving/tls.py"],
    "obstore": ["storage/s3.py"],
}
# The modules whose work is to write on a terminal.
SPEAKING = ["*/cli.py", "*/commands/*.py", "*/demo.py", "*/progress.py", "*/display.py"]

FUNCTION_LINES, FILE_LINES = 40, 350

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)


def stands_in(path, patterns):
    return any(fnmatch(path, pattern) for pattern in patterns)


def python(program):
    # Without coverage's tracer, which would import for itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, check=False, capture_output=True, text=True
    )


def test_the_floors_import_downward_only():
    # In a process of its own: import-linter sets up logging anew, and silences what was there.
    told = python("import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))")
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_vocabulary_is_cheap_to_import():
    names = ", ".join(f"ocispec.{file.stem}" for file in (ROOT / "ocispec").glob("[a-z]*.py"))
    told = python(f"import sys, {names}; print(*sys.modules)")
    assert "ocispec.manifest" in told.stdout.split(), told.stderr
    assert not set(told.stdout.split()) & {"pydantic", "asyncio", "socket", "http", "urllib", "email", "subprocess"}


def test_every_floor_has_modules():
    assert {module.path.partition("/")[0] for module in MODULES} == {"ocispec", "storage", "client", "registry"}


@each_module
def test_a_library_is_met_at_its_home_only(module):
    strays = [(line, name) for line, name in module.imports if not stands_in(module.path, HOMES.get(name, ["*"]))]
    assert strays == []


@each_module
def test_functions_fit_on_a_screen(module):
    functions = (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}


@each_module
def test_files_stay_short(module):
    assert len(module.text.splitlines()) <= FILE_LINES


@each_module
def test_nothing_is_checked_by_an_assertion(module):
    assert [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.Assert)] == []


@each_module
def test_no_error_is_caught_without_its_name(module):
    handlers = (node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler))
    assert [node.lineno for node in handlers if node.type is None] == []


@each_module
def test_only_what_faces_a_terminal_prints(module):
    names = (node for node in ast.walk(module.tree) if isinstance(node, ast.Name) and node.id == "print")
    lines = [node.lineno for node in names]
    assert lines == [] or stands_in(module.path, SPEAKING)
