"""What a user of `unpack` and `bundle` sees."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.caching.cache import Cache
from client.cli import app
from ocispec.digest import Digest
from tests.client.unpacking.making import NAME, PACKED, file, image, tar

LAYER = tar(file("bin/app", "x" * 1200), file("y", xattrs={"trusted.overlay.opaque": "y"}))


def cached(cache: Cache) -> None:
    settings = {"Entrypoint": ["/bin/app"], "Cmd": ["say", "a word"], "Labels": {"run.oci.handler": "wasm"}}
    asyncio.run(image(cache, LAYER, settings=settings))


def told(cache: Cache, *words: str, env: dict[str, str] | None = None) -> tuple[int, list[str], list[str]]:
    """Status, and the lines of standard output and standard error."""
    options, _, rest = " ".join(words).partition(" -- ")
    words = (*options.split(), "--cache", str(cache.root), *(["--", *rest.split()] if rest else []))
    ended = CliRunner().invoke(app, list(words), env=env)
    return ended.exit_code, ended.stdout.splitlines(), ended.stderr.splitlines()


def test_unpack_says_where_what_is(cache: Cache, tmp_path: Path):
    cached(cache)
    status, out, warnings = told(cache, "unpack", NAME, f"{tmp_path}/out")
    assert (status, out) == (0, [f"{tmp_path}/out: {NAME}, linux/amd64, 1 layer, 2 entries, 1.2 kB"])
    assert warnings == ["pullclient: left out, since it is not permitted here: 1 extended attribute"]
    assert (tmp_path / "out/bin/app").exists()


def test_bundle_says_how_it_starts(cache: Cache, tmp_path: Path):
    cached(cache)
    status, out, warnings = told(cache, "bundle", NAME, f"{tmp_path}/out", "-e HERE --env A=1", env={"HERE": "x"})
    assert (status, out[1]) == (0, "starts /bin/app say 'a word'")
    assert warnings[1] == "pullclient: left out labels that a runtime would act on: run.oci.handler"
    assert {"HERE=x", "A=1"} < set(json.loads((tmp_path / "out/config.json").read_text())["process"]["env"])
    status, out, _ = told(cache, "bundle", NAME, f"{tmp_path}/two", "-- --loud -e B")
    assert (status, out[1]) == (0, "starts /bin/app --loud -e B")


@pytest.mark.parametrize("command", ["unpack", "bundle"])
def test_every_error_is_one_line(cache: Cache, tmp_path: Path, command: str):
    cached(cache)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for words, status, message in (
        (["UPPER", "out"], 2, "invalid repository name"),
        ([NAME, "out", "--platform", "a/b/c/d"], 2, "invalid platform 'a/b/c/d'"),
        (["a.example/none", "out"], 1, f"a.example/none:latest is not in the cache {cache.root}"),
        ([NAME, "full"], 1, f"{tmp_path}/full is not empty: expected a new or an empty folder"),
        ([NAME, "no/where"], 1, f"{tmp_path}/no does not exist"),
        ([NAME, "out", "--platform", "linux/mips"], 1, f"{NAME}: no image for linux/mips in the cache"),
    ):
        name, place, *more = words
        code, _, lines = told(cache, command, name, f"{tmp_path}/{place}", *more)
        assert (code, len(lines)) == (status, 1)
        assert message in lines[0]
        assert lines[0].startswith("pullclient: ")
    assert not (tmp_path / "out").exists()


def test_a_variable_without_a_name_is_a_wrong_command_line(cache: Cache, tmp_path: Path):
    cached(cache)
    status, _, lines = told(cache, "bundle", NAME, f"{tmp_path}/out", "--env", "=x")
    assert (status, lines) == (2, ["pullclient: invalid variable '=x': expected NAME=value, or NAME"])


def test_a_damaged_layer_is_named(cache: Cache, tmp_path: Path):
    cached(cache)
    digest = Digest.of(PACKED["application/vnd.oci.image.layer.v1.tar+gzip"](LAYER))
    data = bytearray(cache.layout.path(digest).read_bytes())
    data[20] ^= 1
    cache.layout.path(digest).write_bytes(data)
    status, _, lines = told(cache, "unpack", NAME, f"{tmp_path}/out")
    actual = Digest.of(bytes(data))
    assert (status, lines) == (
        1,
        [f"pullclient: layer {digest} is damaged in the cache: its content hashes to {actual}"],
    )
