"""`pullclient save` and `load` in processes of their own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client.caching.cache import Cache
from tests.client.archive.making import files_in, image, keep, oci, tar
from tests.client.test_cli import Ended, run

NAME = "docker.io/library/a:1"
IMAGE = image("x", "y")


def piped(cache: Cache, *words: str, data: bytes = b"") -> tuple[int, bytes, str]:
    command = (sys.executable, "-m", "client", *words, "--cache", str(cache.root))
    ended = subprocess.run(command, input=data, capture_output=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr.decode()


async def test_an_image_goes_through_a_pipe_into_another_cache(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    other = Cache(tmp_path / "other")
    status, archive, told = piped(cache, "save", "a:1")
    assert (status, told) == (0, "")
    assert piped(other, "load", data=archive) == (0, f"{NAME}\n".encode(), "")
    assert piped(other, "load", "-i", "-", "--name", "b:2", data=archive)[1] == b"docker.io/library/b:2\n"
    assert piped(other, "save", "-o", "-", "a:1")[1] == archive
    assert {each.name for each in await other.images()} == {NAME, "docker.io/library/b:2"}


async def test_files_and_folders(cache: Cache, tmp_path: Path):
    await keep(cache, NAME, IMAGE)
    where = ("--cache", str(cache.root))
    for form in ("docker-archive", "oci-archive", "oci"):
        target = tmp_path / form
        assert await run("save", "a:1", "--format", form, "-o", str(target), *where) == Ended(0, "", "")
        loaded = await run("load", "-i", str(target), "--cache", str(tmp_path / f"cache-{form}"))
        assert loaded == Ended(0, f"{NAME}\n", "")
    assert "manifest.json" in files_in((tmp_path / "docker-archive").read_bytes())


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("save", "No Name"), 2, "invalid repository name"),
        (("save", "a:1", "--platform", "?"), 2, "invalid platform '?'"),
        (("save", "a:1", "--format", "oci"), 2, "an OCI layout is a folder: give its path, or save an oci-archive"),
        (("save", "a:1", "--all-platforms"), 2, "a docker-archive holds one platform per name: save all as"),
        (("save", "a:1"), 1, "docker.io/library/a:1 is not in the cache"),
        (("load", "-i", "/dev/null"), 1, "/dev/null: expected an archive, it is empty"),
        (("load", "-i", "/none"), 1, "/none does not exist"),
        (("load",), 1, "standard input: expected an archive, it is empty"),
        (("load", "--name", "No Name"), 2, "invalid repository name"),
    ],
)
def test_what_goes_wrong_is_one_line(cache: Cache, words: tuple[str, ...], status: int, message: str):
    ended, out, told = piped(cache, *words)
    assert (ended, out) == (status, b"")
    assert told.startswith(f"pullclient: {message}")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("save", "an archive is not written to a terminal: give a file with -o, or a pipe"),
        ("load", "an archive is not read from a terminal: give a file with -i, or a pipe"),
    ],
)
def test_a_terminal_is_refused(cache: Cache, word: str, message: str):
    outer, inner = pty.openpty()
    words = ["a:1"] if word == "save" else []
    command = (sys.executable, "-m", "client", word, *words, "--cache", str(cache.root))
    ended = subprocess.run(command, stdin=inner, stdout=inner, stderr=subprocess.PIPE, check=False)
    os.close(inner)
    os.close(outer)
    assert (ended.returncode, ended.stderr.decode()) == (2, f"pullclient: {message}\n")
    assert not cache.root.exists()


@pytest.mark.parametrize("word", ["save", "load"])
async def test_ctrl_c_ends_what_waits_for_a_pipe(cache: Cache, word: str):
    await keep(cache, NAME, image(*"abcdefgh", packed="plain"))
    words = ["a:1"] if word == "save" else []
    command = (sys.executable, "-m", "client", word, *words, "--cache", str(cache.root))
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1) as running:
        if word == "save":
            assert running.stdout.read(1)
        else:
            # More than a pipe holds: some of it was read, so that the command runs.
            running.stdin.write(tar(oci(image(*"abcdefgh", packed="plain"), "b:1"))[:130_000])
            running.stdin.flush()
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
        assert running.stderr.read() == b"pullclient: interrupted; what is whole in the cache stays\n"
    assert [each.name for each in await cache.images()] == [NAME]
    assert list((cache.root / ".ingest").iterdir()) == []


@pytest.mark.parametrize("words", [("load", "-i", "x" * 300), ("save", "a:1", "-o", "x" * 300)])
async def test_what_the_system_refuses_is_one_line(cache: Cache, words: tuple[str, ...]):
    await keep(cache, NAME, IMAGE)
    ended, _, told = piped(cache, *words)
    assert (ended, told) == (1, f"pullclient: {'x' * 300}: File name too long\n")


async def test_help_tells_what_each_does():
    told = {"save": "Write images of the cache to a file", "load": "Put the images of an archive into the cache."}
    for word, line in told.items():
        helped = await run(word, "--help")
        assert helped.status == 0
        assert line in helped.out
