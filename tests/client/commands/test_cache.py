"""`images` and `inspect`, as somebody types them."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner, Result

from client.caching.cache import Cache
from client.cli import app
from ocispec import mediatypes
from ocispec.digest import Digest
from tests.client.filled import image, index, put

NAME, OTHER = "a.example/x:1", "a.example/y:1"


def invoke(cache: Cache, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--cache", str(cache.root)])


def filled(cache: Cache) -> None:
    async def fill() -> None:
        children = [
            await image(cache, [b"base" * 1000, each.encode()], architecture=each) for each in ("amd64", "arm64")
        ]
        await index(cache, NAME, children)
        await image(cache, [b"base" * 1000], name=OTHER)
        torn = await image(cache, [b"torn"], name="a.example/torn:1")
        cache.layout.path(torn.digest).unlink()

    asyncio.run(fill())


def test_images_are_listed_with_what_they_share(cache: Cache):
    filled(cache)
    rows = [line.split() for line in invoke(cache, "images").stdout.splitlines()]
    assert rows[0] == ["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "SHARED"]
    assert [(row[0], *row[2:]) for row in rows[1:]] == [
        ("a.example/torn:1", "-", "-", "not", "whole", "-"),
        (NAME, "linux/amd64", "2", "4.11", "kB", "4.1", "kB"),
        (NAME, "linux/arm64", "2", "4.11", "kB", "4", "kB"),
        (OTHER, "linux/amd64", "1", "4.1", "kB", "4.1", "kB"),
    ]


def test_quiet_prints_names_and_json_everything(cache: Cache):
    filled(cache)
    assert invoke(cache, "images", "-q").stdout == f"a.example/torn:1\n{NAME}\n{OTHER}\n"
    listed = json.loads(invoke(cache, "images", "--json").stdout)
    assert [(each["name"], len(each["images"])) for each in listed] == [("a.example/torn:1", 0), (NAME, 2), (OTHER, 1)]
    assert listed[2]["images"][0]["layers"] == 1
    both = invoke(cache, "images", "--json", "--quiet")
    assert (both.exit_code, "exclude each other" in both.stderr) == (2, True)


def test_a_name_that_moves_the_cursor_is_shown_without_it(cache: Cache):
    asyncio.run(image(cache, [b"x"], name="evil\x1b[2J:1"))
    assert "evil?[2J:1" in invoke(cache, "images").stdout


def test_the_bytes_of_index_manifest_and_config_are_printed_as_they_are(cache: Cache):
    filled(cache)
    entry = asyncio.run(cache.entry(NAME))
    assert Digest.of(invoke(cache, "inspect", "--raw", NAME).stdout_bytes) == entry.digest
    shown = json.loads(invoke(cache, "inspect", NAME, "--platform", "linux/arm64").stdout)
    (one,) = shown["images"]
    manifest = invoke(cache, "inspect", "--manifest", NAME, "--platform", "linux/arm64").stdout_bytes
    assert str(Digest.of(manifest)) == one["digest"]
    config = invoke(cache, "inspect", "--config", NAME, "--platform", "linux/arm64").stdout_bytes
    assert str(Digest.of(config)) == json.loads(manifest)["config"]["digest"]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["inspect", NAME, "--raw", "--config"], 2, "--config, --manifest and --raw exclude each other"),
        (["inspect", NAME, "--config", "--platform", "linux/386"], 1, "no image for linux/386 in the cache"),
        (["inspect", "a:"], 2, "invalid tag"),
        (["inspect", "a.example/none:1"], 1, "a.example/none:1 is not in the cache"),
        (["inspect", "a.example/torn:1"], 1, "is not whole in the cache"),
    ],
)
def test_what_goes_wrong_is_one_line(cache: Cache, words: list[str], status: int, text: str):
    filled(cache)
    ended = invoke(cache, *words)
    assert (ended.exit_code, ended.stdout) == (status, "")
    assert text in ended.stderr


def test_a_config_that_is_none_is_printed_as_it_is(cache: Cache):
    async def fill() -> None:
        config = (await put(cache, b"helm's", "application/vnd.cncf.helm.config.v1+json")).to_json()
        manifest = {"schemaVersion": 2, "config": config, "layers": []}
        await cache.layout.set_name(NAME, await put(cache, json.dumps(manifest).encode(), mediatypes.OCI_MANIFEST))

    asyncio.run(fill())
    assert invoke(cache, "inspect", "--config", NAME).stdout == "helm's"
