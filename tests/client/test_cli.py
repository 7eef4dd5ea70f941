"""The command itself, in a process of its own: what it prints, where, and with which status it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.caching.cache import Cache
from client.cli import app
from client.transfers.pulling import pull
from tests.client.scripted import Reply, ScriptedRegistry, scripted
from tests.client.transfers.test_pulling import tree, verify

COMMAND = (sys.executable, "-m", "client")


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str


async def run(*words: str, **variables: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *words, stdout=-1, stderr=-1, env={**os.environ, **variables}
    )
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_a_pull_prints_a_line_per_layer_and_images_and_inspect_show_it(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [b"base", b"app"])
    name = f"{registry.host}/a/b:1"
    pulled = await run("pull", name, PULLCLIENT_CACHE=str(cache.root))
    assert (pulled.status, pulled.err) == (0, "")
    lines = pulled.out.splitlines()
    assert lines[0] == f"{name}: 2 layers, {image.size} B"
    assert sorted(line.split()[0] for line in lines[1:3]) == sorted(each[7:19] for each in image.layers)
    assert lines[3] == f"{name}: {image.digest}, {image.size} B fetched"
    assert verify(cache)


async def test_quiet_prints_the_digest_alone_and_several_images_come_in_one_call(
    registry: ScriptedRegistry, cache: Cache
):
    digests = [registry.publish("a/b", tag, [tag.encode()]).digest for tag in "12"]
    pulled = await run("pull", "-q", "--cache", str(cache.root), *(f"{registry.host}/a/b:{tag}" for tag in "12"))
    assert pulled == Ended(0, "".join(f"{each}\n" for each in digests), "")


async def test_images_come_side_by_side_and_are_told_in_the_order_in_which_they_were_named(
    registry: ScriptedRegistry, cache: Cache
):
    both = asyncio.Barrier(2)
    digests = []
    for tag in "12":
        image = registry.publish("a/b", tag, [tag.encode()])
        digests.append(image.digest)
        # Each waits for the other: one after the other they would never come.
        registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = Reply(200, tag.encode(), wait=both.wait)
    slow = registry.publish("a/b", "slow", [b"slow"])
    done = asyncio.Event()
    registry.behaviours[f"/v2/a/b/blobs/{slow.layers[0]}"] = Reply(200, b"slow", wait=done.wait)
    names = [f"{registry.host}/a/b:{tag}" for tag in ("slow", "1", "2")]
    pulling = asyncio.create_task(run("pull", "-q", "--cache", str(cache.root), *names))
    while len(await cache.images()) < 2:
        await asyncio.sleep(0.02)
    done.set()
    assert await pulling == Ended(0, "".join(f"{each}\n" for each in (slow.digest, *digests)), "")


async def test_a_locked_pull_brings_what_was_locked_whatever_the_tag_says_now(
    registry: ScriptedRegistry, cache: Cache, tmp_path: Path
):
    names, lock = [f"{registry.host}/a/b:{tag}" for tag in "12"], tmp_path / "images.lock"
    first, second = (registry.publish("a/b", tag, [tag.encode()]).digest for tag in "12")
    assert (await run("lock", str(lock), *names)).status == 0
    registry.publish("a/b", "1", [b"moved"])
    words = ("pull", "-q", "--cache", str(cache.root), "--locked", str(lock))
    assert await run(*words) == Ended(0, f"{first}\n{second}\n", "")
    assert await run(*words, names[1]) == Ended(0, f"{second}\n", "")
    other = await run(*words, f"{registry.host}/a/b:3")
    assert (other.status, other.out) == (2, "")
    assert other.err.startswith(f"pullclient: {lock} does not lock {registry.host}/a/b:3: pullclient lock ")
    lock.write_text("a b c\n")
    assert (await run(*words)).err.startswith(f"pullclient: {lock}:1: ")


async def test_json_prints_one_object_per_line(registry: ScriptedRegistry, cache: Cache):
    digest, _ = registry.publish_index("a/b", "1", {"amd64": [b"x"], "arm64": [b"y"]})
    words = ("--json", "--platform", "linux/arm64", "--jobs", "1", "--cache", str(cache.root))
    pulled = await run("pull", *words, f"{registry.host}/a/b:1")
    events = [json.loads(line) for line in pulled.out.splitlines()]
    assert (events[0]["event"], events[0]["platform"]) == ("resolved", "linux/arm64")
    assert (events[-1]["event"], events[-1]["digest"]) == ("pulled", digest)


async def test_each_failure_is_one_line_with_host_image_digest_and_cause(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "before", [b"before"])
    await pull(f"{registry.host}/a/b:before", cache=cache)
    wrong, cut = (registry.publish("a/b", tag, [tag.encode() * 9]) for tag in ("wrong", "cut"))
    registry.publish_index("a/b", "index", {"amd64": [b"x"]})
    registry.behaviours[f"/v2/a/b/blobs/{wrong.layers[0]}"] = Reply(200, b"gnorw" * 9)
    registry.behaviours[f"/v2/a/b/blobs/{cut.layers[0]}"] = Reply(200, b"cut", promised=27)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    index = (cache.root / "index.json").read_bytes()
    expected = {
        f"{registry.host}/a/b:wrong": f"{registry.host}/a/b:wrong: {wrong.layers[0]}: expected {wrong.layers[0]}, its",
        f"{registry.host}/a/b:cut": f"{registry.host}/a/b:cut: {cut.layers[0]}: ended after 3 of 27 bytes: ",
        f"{registry.host}/a/none": f"{registry.host}/a/none:latest: manifest unknown (status 404)",
        f"{closed}/a/b": f"{closed}/a/b:latest: {closed} cannot be reached: connection refused",
        "host.invalid/a": "host.invalid/a:latest: host.invalid cannot be reached: its name does not resolve",
        f"{registry.host}/a/b:index --platform=windows/386": "no image for windows/386; there are: linux/amd64",
    }
    # Side by side: what may pass is tried for some seconds.
    all_ended = await asyncio.gather(*(run("pull", "--cache", str(cache.root), *words.split()) for words in expected))
    for ended, text in zip(all_ended, expected.values(), strict=True):
        assert (ended.status, ended.out.count("fetched"), len(ended.err.splitlines())) == (1, 0, 1), ended
        assert ended.err.startswith("pullclient: ")
        assert text in ended.err
    assert (cache.root / "index.json").read_bytes() == index
    found = verify(cache, partials=True, quarantine=True)
    assert not {wrong.digest, cut.digest, wrong.layers[0], cut.layers[0]} & found


async def test_ctrl_c_ends_with_130_and_the_cache_stays_sound(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "before", [b"before"])
    await pull(f"{registry.host}/a/b:before", cache=cache)
    before, never = tree(cache.root), asyncio.Event()
    image = registry.publish("a/b", "1", [b"slow" * 9])
    registry.behaviours[f"/v2/a/b/blobs/{image.layers[0]}"] = Reply(200, b"slow" * 9, wait=never.wait)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "pull", "--cache", str(cache.root), f"{registry.host}/a/b:1", stdout=-1, stderr=-1
    )
    while image.layers[0] not in registry.blobs():
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode() == "pullclient: interrupted; what is whole in the cache stays\n"
    after = tree(cache.root)
    assert {name: after[name] for name in before} == before
    assert not {image.digest, image.layers[0]} & verify(cache, partials=True)


async def test_on_a_terminal_there_are_bars(registry: ScriptedRegistry, cache: Cache):
    image = registry.publish("a/b", "1", [b"base" * 1000])
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "pull", "--cache", str(cache.root), f"{registry.host}/a/b:1", stdout=terminal, stderr=-1
    )
    os.close(terminal)
    shown = await asyncio.to_thread(read_screen, screen)
    assert (await process.communicate())[1] == b""
    assert process.returncode == 0
    assert image.layers[0][7:19] in shown
    assert "4.0/4.0 kB" in shown


def read_screen(screen: int) -> str:
    shown = b""
    try:
        while data := os.read(screen, 65536):
            shown += data
    except OSError:  # Linux's way to say that the other end is closed
        pass
    finally:
        os.close(screen)
    return shown.decode()


async def test_a_folder_that_cannot_be_the_cache_is_named(registry: ScriptedRegistry, tmp_path: Path):
    registry.publish("a/b", "1", [b"x"])
    (tmp_path / "file").write_text("")
    ended = await run("pull", "--cache", str(tmp_path / "file"), f"{registry.host}/a/b:1")
    assert (ended.status, len(ended.err.splitlines())) == (1, 1)
    assert str(tmp_path / "file") in ended.err


async def test_help_loads_nothing_that_a_pull_needs():
    code = "import sys, client.cli; client.cli.app(['--help'], standalone_mode=False); print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=-1)
    loaded = (await process.communicate())[0].decode().splitlines()[-1].split()
    assert "client.cli" in loaded
    heavy = {"httpx", "httpcore", "asyncio", "rich", "pydantic", "client.transfers.pulling", "storage.layout"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["pull"], "name an image, or a lock file with --locked"),
        (["pull", "a", "--quiet", "--json"], "--quiet and --json exclude each other"),
        (["pull", "UP PER"], "invalid repository name"),
        (["pull", "a@sha256:1"], "invalid digest"),
        (["pull", "a", "--platform", "a/b/c/d"], "invalid platform"),
        (["pull", "a", "--jobs", "0"], "--jobs"),
        (["inspect", "a:"], "invalid tag"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(words: list[str], text: str):
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2
    assert text in ended.stderr


def test_images_and_inspect_read_the_cache(cache: Cache):
    async def fill() -> str:
        async with scripted() as registry:
            registry.publish_index("a/b", "1", {"amd64": [b"x"], "arm64": [b"yy"]})
            name = f"{registry.host}/a/b:1"
            for platform in ("linux/amd64", "linux/arm64"):
                await pull(name, platform=platform, cache=cache)
            return name

    name = asyncio.run(fill())
    folder = ["--cache", str(cache.root)]
    listed = CliRunner().invoke(app, ["images", *folder])
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert rows[0] == ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "SHARED"]
    assert [(row[0], row[2]) for row in rows[1:]] == [(name, "linux/amd64"), (name, "linux/arm64")]
    shown = json.loads(CliRunner().invoke(app, ["inspect", name, *folder]).stdout)
    assert [each["platform"] for each in shown["images"]] == ["linux/amd64", "linux/arm64"]
    absent = CliRunner().invoke(app, ["inspect", "node", *folder])
    assert absent.exit_code == 1
    assert absent.stderr == f"pullclient: docker.io/library/node:latest is not in the cache {cache.root}\n"


def test_the_version_is_told():
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("pullclient ")


@pytest.mark.parametrize("words", [[], ["pull"], ["images"], ["inspect"]])
def test_help_reads_well(words: list[str]):
    told = CliRunner().invoke(app, [*words, "--help"])
    assert told.exit_code == 0
    assert told.stdout.startswith("Usage: ")
    assert max(map(len, told.stdout.splitlines())) <= 80
