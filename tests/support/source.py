"""The project's own modules, for tests that hold the source to the rules of the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = ("ocispec", "storage", "client", "registry")


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a floor.

    Attributes:
        path: from the project's folder, with forward slashes.
        text: its source.
        tree: its source, parsed.
    """

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, file: Path) -> Module:
        text = file.read_text()
        return cls(file.relative_to(ROOT).as_posix(), text, ast.parse(text, str(file)))

    @property
    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and top-level package of every import, wherever it stands."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.lineno, node.module.partition(".")[0]


def modules() -> list[Module]:
    """Every module of the four floors, by path."""
    return [Module.read(file) for floor in FLOORS for file in sorted((ROOT / floor).rglob("*.py"))]
