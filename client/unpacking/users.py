"""Who a container runs as, by the image's own /etc/passwd and /etc/group (image-spec, config.md, `User`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from client.unpacking.tree import Tree
from ocispec.errors import LayerInvalid

MAX_ID = 2**31 - 1  # what runtimes take
_MAX_FILE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class User:
    """Numbers of a user, the group, and the other groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def user_of(text: str, tree: Tree) -> User:
    """Reads `user[:group]`, each a name or a number; empty is root.

    A user in /etc/passwd gets the group from there and further ones from /etc/group, unless a group is told; a number
    that stands nowhere gets group 0, as docker has it.

    Raises:
        LayerInvalid: a name that the image does not have, or a number that is none of a user.
    """
    user, _, group = text.partition(":")
    name, uid, gid = _account(user or "0", text, tree)
    if group:
        return User(uid, _group(group, text, tree))
    members = [_number(fields[2]) for fields in _lines(tree, b"etc/group", 4) if name in fields[3].split(",")]
    # With its own group among them, nobody can be let in by having lost it (CVE-2022-2989).
    groups = dict.fromkeys([gid, *(each for each in members if each is not None)])
    return User(uid, gid, tuple(groups))


def _account(user: str, text: str, tree: Tree) -> tuple[str | None, int, int]:
    number = _number(user)
    for fields in _lines(tree, b"etc/passwd", 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None and (fields[0] == user or uid == number):
            return fields[0], uid, gid
    if number is None:
        _refuse(text, user, "/etc/passwd")
    return None, number, 0


def _group(group: str, text: str, tree: Tree) -> int:
    number = _number(group)
    for fields in _lines(tree, b"etc/group", 3):
        gid = _number(fields[2])
        if gid is not None and (fields[0] == group or gid == number):
            return gid
    if number is None:
        _refuse(text, group, "/etc/group")
    return number


def _lines(tree: Tree, name: bytes, fields: int) -> Iterator[list[str]]:
    for line in tree.read(name, _MAX_FILE).decode("utf-8", "replace").splitlines():
        found = line.strip().split(":")
        if len(found) >= fields and found[0] and not found[0].startswith("#"):
            yield found


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID:
        return int(text)
    return None


def _refuse(text: str, name: str, file: str) -> NoReturn:
    raise LayerInvalid(f"it runs as {text[:80]!r}, and {name[:80]!r} is neither in its {file} nor a number it can be")
