"""`du`, `rm`, `prune` and `verify`, as somebody types them."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys

import pytest
from typer.testing import CliRunner, Result

from client.caching.cache import Cache
from client.cli import app
from client.transfers.pulling import pull
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from tests.client.filled import image, index, put, spoil
from tests.client.scripted import Reply, ScriptedRegistry

NAME, OTHER = "a.example/x:1", "a.example/y:1"


def invoke(cache: Cache, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--cache", str(cache.root)])


@pytest.fixture
def filled(cache: Cache) -> Cache:
    async def fill() -> None:
        await image(cache, [b"base" * 10_000, b"one" * 1000], name=NAME)
        await image(cache, [b"base" * 10_000, b"other" * 1000], name=OTHER)

    asyncio.run(fill())
    return cache


def test_du_counts_what_is_shared_once(filled: Cache):
    asyncio.run(put(filled, b"nobody's" * 100))
    lines = invoke(filled, "du").stdout.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["NAME", "OWN", "SHARED", "TOTAL"],
        [NAME, "3.57", "kB", "40.1", "kB", "43.7", "kB"],
        [OTHER, "5.57", "kB", "40.1", "kB", "45.7", "kB"],
    ]
    assert lines[3:] == [
        "2 names: 49.2 kB, what they share counted once",
        "1 blob that no image needs: 800 B",
        "in all: 50 kB",
    ]
    assert json.loads(invoke(filled, "du", "--json").stdout)["unreferenced"] == {"count": 1, "size": 800}


def test_rm_tells_what_nobody_needs_now_and_prune_removes_it(filled: Cache):
    removed = invoke(filled, "rm", NAME)
    assert removed.stdout.splitlines() == [
        f"removed {NAME}",
        "2 blobs, 3.57 kB: no image needs them now; `pullclient prune --all` removes them",
    ]
    young = invoke(filled, "prune").stdout.splitlines()
    assert young == [
        "0 B freed",
        "2 blobs, 3.57 kB: no image needs them, but they came within the last 24 h; --all removes them too",
    ]
    would = invoke(filled, "prune", "--all", "--dry-run").stdout.splitlines()
    assert would == ["2 blobs that no image needs: 3.57 kB", "3.57 kB would be freed"]
    assert json.loads(invoke(filled, "prune", "--all", "--json").stdout)["blobs"]["count"] == 2
    assert invoke(filled, "images", "-q").stdout == f"{OTHER}\n"


def test_rm_frees_at_once_where_that_is_asked_for(filled: Cache):
    assert invoke(filled, "rm", "--prune", NAME, NAME).stdout.splitlines() == [
        f"removed {NAME}",
        "2 blobs removed: 3.57 kB freed",
    ]
    asyncio.run(filled.layout.set_name("a.example/again:1", asyncio.run(filled.entry(OTHER))))
    assert invoke(filled, "rm", "--prune", OTHER).stdout.splitlines()[1:] == ["0 blobs removed: 0 B freed"]
    asyncio.run(filled.layout.set_name(OTHER, asyncio.run(filled.entry("a.example/again:1"))))
    assert invoke(filled, "rm", OTHER).stdout.splitlines()[1:] == ["other images need all of its blobs"]


async def test_prune_says_that_it_waits(filled: Cache):
    async with filled.layout.in_use():
        code = "import sys; from client.cli import app; app()"
        words = [sys.executable, "-c", code, "prune", "--all", "--cache", str(filled.root)]
        pruning = await asyncio.create_subprocess_exec(*words, stdout=-1, stderr=-1)
        assert pruning.stderr
        assert await pruning.stderr.readline() == b"pullclient: waiting for another pullclient that uses the cache\n"
    assert await pruning.communicate() == (b"0 B freed\n", b"")


def test_verify_is_quiet_about_a_sound_cache(filled: Cache):
    assert invoke(filled, "verify").stdout == "6 blobs, 49.2 kB checked: all good\n"
    assert json.loads(invoke(filled, "verify", "--json", NAME).stdout)["wrong"] == []


def test_verify_names_each_flaw_and_ends_with_1(filled: Cache):
    base, one = Digest.of(b"base" * 10_000), Digest.of(b"one" * 1000)

    async def harm() -> None:
        lone = await put(filled, b"lone")
        for each in (base, lone.digest):
            spoil(filled, each)
        filled.layout.path(one).unlink()
        strange = await put(filled, b"[]", "application/vnd.oci.image.manifest.v1+json")
        await filled.layout.set_name("a.example/strange:1", strange)
        absent = Descriptor(strange.media_type, Digest.of(b"absent"), 6)
        await index(filled, "a.example/empty:1", [absent])

    asyncio.run(harm())
    ended = invoke(filled, "verify")
    assert ended.exit_code == 1
    lines = ended.stdout.splitlines()
    assert f"{base}: damaged, moved to quarantine; needed by {NAME}, {OTHER}" in lines
    assert f"{Digest.of(b'lone')}: damaged, moved to quarantine; no image needs it" in lines
    assert f"{one}: missing; needed by {NAME}" in lines
    assert any("no manifest that can be read: manifest invalid" in each for each in lines)
    assert any(
        each.endswith("none of its images is here: pull it again; needed by a.example/empty:1") for each in lines
    )
    assert lines[-1].endswith(": 5 wrong; `pullclient verify --repair` fetches it again")
    again = invoke(filled, "verify", "a.example/empty:1", "a.example/strange:1")
    assert again.stdout.splitlines()[-1].endswith(": 2 wrong")
    assert invoke(filled, "prune", "--dry-run").exit_code == 1


async def test_verify_repairs_what_registries_still_have(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "1", [b"base", b"app"])
    name = f"{registry.host}/a/b:1"
    await pull(name, cache=cache)
    base, other = Digest.of(b"base"), Digest.of(b"app")
    for each in (base, other):
        spoil(cache, each)
    held = registry.behaviours.pop(f"/v2/a/b/blobs/{other}")
    half = await asyncio.to_thread(invoke, cache, "verify", "--repair")
    assert half.exit_code == 1
    assert f"{base}: fetched again" in half.stdout.splitlines()
    assert half.stdout.splitlines()[-1].endswith(" checked: 1 still wrong")
    assert half.stderr.startswith(f"pullclient: {name}: {other}: ")
    registry.behaviours[f"/v2/a/b/blobs/{other}"] = held
    whole = await asyncio.to_thread(invoke, cache, "verify", "--repair", name)
    assert (whole.exit_code, whole.stdout.splitlines()[-1].endswith("all good now")) == (0, True)
    spoil(cache, base)
    registry.behaviours[f"/v2/a/b/blobs/{base}"] = Reply(404)
    failed = await asyncio.to_thread(invoke, cache, "verify", "--repair", "--json")
    assert [each["kind"] for each in json.loads(failed.stdout)["wrong"]] == ["missing"]


async def test_on_a_terminal_verify_tells_how_far_it_is(filled: Cache):
    screen, terminal = pty.openpty()
    code = "import sys; from client.cli import app; app()"
    words = [sys.executable, "-c", code, "verify", "--cache", str(filled.root)]
    process = await asyncio.create_subprocess_exec(*words, stdout=-1, stderr=terminal)
    os.close(terminal)
    out, _ = await process.communicate()
    shown = os.read(screen, 65536).decode()
    os.close(screen)
    assert out == b"6 blobs, 49.2 kB checked: all good\n"
    assert "checking blob 1 of 6" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["rm"], 2, "Missing argument"),
        (["rm", NAME, "a.example/none:1"], 1, "a.example/none:1 is not in the cache"),
        (["rm", "a:"], 2, "invalid tag"),
        (["verify", "a.example/none:1"], 1, "a.example/none:1 is not in the cache"),
        (["prune", "--older", "soon"], 2, "invalid age 'soon'"),
    ],
)
def test_what_goes_wrong_is_told_and_changes_nothing(filled: Cache, words: list[str], status: int, text: str):
    ended = invoke(filled, *words)
    assert ended.exit_code == status
    assert text in ended.stderr
    assert invoke(filled, "images", "-q").stdout == f"{NAME}\n{OTHER}\n"


@pytest.mark.parametrize("word", ["images", "inspect", "history", "tree", "diff", "du", "rm", "prune", "verify"])
def test_help_reads_well_and_a_damaged_index_is_one_line(cache: Cache, word: str):
    told = CliRunner().invoke(app, [word, "--help"])
    assert told.exit_code == 0
    assert max(map(len, told.stdout.splitlines())) <= 80
    cache.root.mkdir()
    (cache.root / "index.json").write_text('{"manifests": [')
    operands = {"inspect": [NAME], "history": [NAME], "rm": [NAME], "diff": [NAME, OTHER]}
    ended = invoke(cache, word, *operands.get(word, []))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"pullclient: {cache.root / 'index.json'} is damaged: ")
    assert len(ended.stderr.splitlines()) == 1
    assert (cache.root / "index.json").read_text() == '{"manifests": ['
