"""`history`, `tree` and `diff`, as somebody types them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from client.caching.cache import Cache
from client.cli import app
from client.transfers.pulling import pull
from ocispec.digest import Digest
from tests.client.filled import image
from tests.client.scripted import ScriptedRegistry

BASE, DEPS = b"base" * 1000, b"deps" * 2000
TIME = "2026-01-02T03:04:05.678Z"


def invoke(cache: Cache, *words: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, "--cache", str(cache.root)])


def step(text: str, *, empty: bool = False) -> dict[str, Any]:
    return {"created": TIME, "created_by": text, **({"empty_layer": True} if empty else {})}


HISTORY = [
    step("/bin/sh -c #(nop) ADD file:1 in / "),
    step('/bin/sh -c #(nop)  CMD ["sh"]', empty=True),
    step(f"RUN /bin/sh -c npm ci {'--long ' * 20}# buildkit"),
]
COPY = step("COPY . . # buildkit")


@pytest.fixture
def filled(cache: Cache) -> Cache:
    async def fill() -> None:
        await image(cache, [BASE, DEPS, b"one"], name="a.example/app:1", history=[*HISTORY, COPY])
        await image(cache, [BASE, DEPS, b"other"], name="a.example/app:2", history=[*HISTORY, COPY])
        await image(cache, [BASE], name="a.example/base:1", history=HISTORY[:2])
        await image(cache, [b"first", BASE, DEPS], name="a.example/bad:1", history=[COPY, *HISTORY])

    asyncio.run(fill())
    return cache


def test_each_layer_stands_beside_its_instruction_the_base_first(filled: Cache):
    lines = invoke(filled, "history", "a.example/app:1").stdout.splitlines()
    assert lines[0].split() == ["LAYER", "CREATED", "SIZE", "INSTRUCTION"]
    assert lines[1].split("  ")[0] == Digest.of(BASE).short
    assert [line.split("2026-01-02 03:04:05  ")[1].split(maxsplit=2) for line in lines[1:5]] == [
        ["4", "kB", "ADD file:1 in /"],
        ["0", "B", 'CMD ["sh"]'],
        ["8", "kB", "RUN npm ci --long --long --long -…"],
        ["3", "B", "COPY . ."],
    ]
    assert max(map(len, lines)) <= 80
    assert lines[5].startswith("3 layers, 12.")


def test_nothing_is_cut_where_that_is_asked_for(filled: Cache):
    shown = invoke(filled, "history", "--no-trunc", "a.example/app:1").stdout
    assert str(Digest.of(BASE)) in shown
    assert "--long " * 19 in shown
    steps = json.loads(invoke(filled, "history", "--json", "a.example/app:1").stdout)
    assert [(each["size"], each["digest"] is None) for each in steps] == [
        (4000, False),
        (0, True),
        (8000, False),
        (3, False),
    ]
    assert steps[0]["createdBy"] == HISTORY[0]["created_by"]


def test_an_image_that_tells_nothing_shows_its_layers(cache: Cache):
    asyncio.run(image(cache, [b"x"], name="a.example/x:1"))
    assert invoke(cache, "history", "a.example/x:1").stdout.splitlines()[1].split() == [
        Digest.of(b"x").short,
        "-",
        "1",
        "B",
        "-",
    ]


def test_the_tree_shows_who_lies_on_whose_layers(filled: Cache):
    assert invoke(filled, "tree").stdout.splitlines() == [
        "1 layer, 4 kB, under 3 images: a.example/base:1 (linux/amd64)",
        "└─ 1 layer, 8 kB, under 2 images",
        "   ├─ 1 layer, 3 B: a.example/app:1 (linux/amd64)",
        "   └─ 1 layer, 5 B: a.example/app:2 (linux/amd64)",
        "3 layers, 12 kB: a.example/bad:1 (linux/amd64)",
        "4 images, 5 layers: 12 kB; without sharing 40 kB",
    ]


def test_the_tree_of_some_images_and_in_json(filled: Cache):
    lines = invoke(filled, "tree", "a.example/app:1", "a.example/app:2").stdout.splitlines()
    assert lines[0] == "2 layers, 12 kB, under 2 images"
    (branch,) = json.loads(invoke(filled, "tree", "--json", "a.example/app:1", "a.example/base:1").stdout)
    assert [each["name"] for each in branch["images"]] == ["a.example/base:1"]
    assert branch["above"][0]["images"] == [{"name": "a.example/app:1", "platform": "linux/amd64"}]


def test_an_image_that_is_not_whole_is_named_beside_the_tree(filled: Cache):
    filled.layout.path(Digest.of(b"one")).unlink()
    shown = invoke(filled, "tree").stdout.splitlines()
    assert shown[-1] == "not whole, and left out: a.example/app:1"


def test_a_well_ordered_dockerfile_moves_little(filled: Cache):
    lines = invoke(filled, "diff", "a.example/app:1", "a.example/app:2").stdout.splitlines()
    assert lines[0].startswith("A: a.example/app:1 (linux/amd64): 3 layers, 12.")
    assert "In both, from the base up: 2 layers, 12 kB" in lines
    assert "Only in B: 1 layer, 5 B" in lines
    assert lines[-1].startswith("Where A is there, a pull of B moves 5 B of 12.")
    assert lines[-1].endswith(", for they part at layer 3 of 3 (COPY . .).")


def test_a_badly_ordered_one_parts_at_once_and_the_same_bytes_are_found_all_the_same(filled: Cache):
    lines = invoke(filled, "diff", "a.example/app:1", "a.example/bad:1").stdout.splitlines()
    assert "In both, elsewhere: 2 layers, 12 kB" in lines
    assert lines[-1].endswith(", for they part at layer 1 of 3 (COPY . .).")


def test_what_is_all_there_moves_nothing(filled: Cache):
    lines = invoke(filled, "diff", "a.example/app:1", "a.example/app:1").stdout.splitlines()
    assert lines[-1].startswith("Where A is there, a pull of B moves 0 B of 12.")
    assert lines[-1].endswith(", for A has all its layers.")


def test_a_diff_in_json(filled: Cache):
    found = json.loads(invoke(filled, "diff", "--json", "a.example/app:1", "a.example/app:2").stdout)
    assert (found["moved"], len(found["base"]), found["onlyB"][0]["instruction"]) == (5, 2, "COPY . .")


async def test_an_image_of_a_registry_is_compared_without_fetching_its_layers(registry: ScriptedRegistry, cache: Cache):
    registry.publish("a/b", "1", [BASE, b"1"])
    registry.publish("a/b", "2", [BASE, b"22"])
    await pull(f"{registry.host}/a/b:1", cache=cache)
    names = [f"{registry.host}/a/b:{tag}" for tag in "12"]
    shown = await asyncio.to_thread(invoke, cache, "diff", *names)
    assert f"B: {names[1]} (linux/amd64): 2 layers, 4.09 kB, not in the cache" in shown.stdout.splitlines()
    assert (
        shown.stdout.splitlines()[-1]
        == "Where A is there, a pull of B moves 2 B of 4.09 kB, for they part at layer 2 of 2."
    )
    assert str(Digest.of(b"22")) not in registry.blobs()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["history", "a.example/none:1"], 1, "a.example/none:1 is not in the cache"),
        (["history", "a:"], 2, "invalid tag"),
        (["tree", "UP PER"], 2, "invalid repository name"),
        (["diff", "a.example/app:1", "a:"], 2, "invalid tag"),
        (["diff", "a.example/app:1"], 2, "Missing argument 'B'"),
    ],
)
def test_what_goes_wrong_is_told(filled: Cache, words: list[str], status: int, text: str):
    ended = invoke(filled, *words)
    assert ended.exit_code == status
    assert text in ended.stderr
