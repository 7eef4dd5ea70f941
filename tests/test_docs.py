"""What a newcomer reads is there, and what it points to exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.support.source import ROOT, modules

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NEEDED = ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "docs/design.md"]

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_a_module_says_what_it_is_for(module):
    assert ast.get_docstring(module.tree)


@pytest.mark.parametrize("name", NEEDED)
def test_the_documents_are_there(name):
    assert (ROOT / name).read_text().strip()


@each_document
def test_links_inside_the_project_lead_somewhere(document):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@each_document
def test_documents_that_are_named_exist(document):
    named = set(re.findall(r"`((?:docs/)?[A-Za-z]+\.md)`", document.read_text()))
    assert [name for name in named if not ((ROOT / name).exists() or (document.parent / name).exists())] == []


def test_the_commands_page_is_what_help_says():
    told = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference", "--check"], check=False, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
