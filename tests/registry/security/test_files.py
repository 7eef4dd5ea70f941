"""What lies on disk and is nobody else's business is for its owner alone, however careless the umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.auth import passwordfile, tokens_file
from registry.auth.passwords import hash_password
from storage.files import FilesEngine
from tests.support.api import serving
from tests.support.callers import basic, settings

# Everything else that a registry keeps beside images has to be for its owner alone.
FOR_OTHERS_TOO = {"audit.log": 0o640}


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


async def test_users_keys_tokens_logins_and_events_are_for_their_owner_alone(tmp_path: Path) -> None:
    passwords, root = tmp_path / "auth" / "htpasswd", tmp_path / "root"
    passwordfile.add(passwords, "alice", hash_password("correct horse"))
    wish = tokens_file.Wish("ci", None, ("**",), ("pull",))
    tokens_file.create(root / ".layerhouse" / tokens_file.FILE, wish)
    more: Any = {
        "storage": {"filesystem": {"rootdirectory": root}},
        "notifications": {"endpoints": [{"name": "x", "url": "http://127.0.0.1:1/"}]},
    }
    layerhouse = {"tokens": {"enabled": True}, "audit": {"file": str(tmp_path / "audit.log")}}
    given = settings(passwords, None, **more, layerhouse=layerhouse)
    async with serving(FilesEngine(root), given) as api:
        alice = basic("alice", "correct horse")
        assert (await api.ask("GET", "/auth/token?offline_token=1", headers=alice)).status == 200
        begun = await api.ask("POST", "/v2/image/blobs/uploads/", headers=alice)
        assert begun.status == 202
        found = {each for folder in (root / ".layerhouse", passwords.parent) for each in folder.rglob("*")}
        files = {each for each in found | {tmp_path / "audit.log"} if each.is_file()}
        modes = {each.name: each.stat().st_mode & 0o777 for each in files}
    assert {"htpasswd", "tokens.json", "tokens.sqlite", "token-keys.pem", "notifications.sqlite", "audit.log"} <= set(
        modes
    )
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == FOR_OTHERS_TOO


def test_a_file_of_passwords_keeps_the_mode_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("bob:x\n")
    path.chmod(0o440)
    passwordfile.add(path, "alice", hash_password("correct horse"))
    assert path.stat().st_mode & 0o777 == 0o440
    assert not [each for each in tmp_path.iterdir() if each != path]
