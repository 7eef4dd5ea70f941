"""Unpacking without root: what is left out, and that a failure leaves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from client.caching.cache import Cache
from tests.client.unpacking.making import NAME, device, file, folder, image, left, tar, tree
from tests.support.processes import run
from tests.support.source import ROOT

AS_NOBODY = """
import asyncio, concurrent.futures.thread, os, sys
from client.caching.cache import Cache
from client.unpacking.unpacking import unpack
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
root = sys.argv[1]
print(asyncio.run(unpack(Cache(root + "/cache"), "{name}", root + "/out", report=lambda event: print(event))))
"""


@pytest.mark.peer("root")
async def test_without_privileges_what_is_not_permitted_is_left_out_and_counted(public: Path):
    await image(
        Cache(public / "cache"),
        tar(
            folder("closed", 0o000, uid=0),
            file("closed/mine", "x", 0o4755, uid=65534, gid=65534),
            file("closed/su", "x", 0o4755),
            device("null", 1, 3),
            file("x", uid=65534, gid=65534, xattrs={"trusted.x": "1", "user.x": "1"}),
            folder("read-only", 0o555),
            file("read-only/f"),
        ),
        tar(file("closed/more")),
    )
    done = as_nobody(public)
    assert "left out, since it is not permitted here: 6 owners, 1 device, 1 extended attribute" in done
    found = tree(public / "out")
    assert found["closed"][:3] == ("0o40000", 65534, 65534)
    assert found["closed/mine"][0] == "0o104755"
    assert found["closed/su"][:3] == ("0o100755", 65534, 65534)
    assert found["x"][5] == {"user.x": b"1"}
    assert "null" not in found


@pytest.mark.peer("root")
async def test_without_privileges_nothing_is_left_of_a_failure(public: Path):
    """When the folders have got their modes, their owner may not remove what is in them: all the same it must go."""
    public.chmod(0o1777)
    (public / "out").mkdir()
    layer = tar(folder("closed"), file("closed/x"), file("closed/deep/y"), folder("closed/deep", 0o000))
    await image(Cache(public / "cache"), layer)
    assert f"StorageError: {public}/out: Operation not permitted" in as_nobody(public, fail=True)
    assert left(public) == ["out"]


def as_nobody(place: Path, *, fail: bool = False) -> str:
    run("chmod", "-R", "a+rwX", str(place / "cache"))
    command = [sys.executable, "-c", AS_NOBODY.replace("{name}", NAME), str(place)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode != 0) is fail, ended.stderr
    return ended.stdout + ended.stderr
