"""Faults of hosts: waits, expired tokens and addresses, mirrors that fail; and what a whole pull makes of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from client.progress import Waiting, Warned
from client.session import Session
from client.transfers.pulling import Options, pull_in
from ocispec.errors import (
    LayerhouseError,
    TooManyRequests,
    Unavailable,
    UnknownError,
)
from ocispec.reference import Reference
from tests.client.faults import (
    BIG,
    DATA,
    PATH,
    Bench,
    bench,
    large,
    parts,
    quick_records,
    spoilt,
    way,
)
from tests.client.faulty import FaultyRegistry, Sent, faulty
from tests.client.scripted import Reply, Seen
from tests.client.transfers.test_pulling import verify

# Fixtures, which pytest finds by their names here.
__all__ = ["bench", "parts", "quick_records", "way"]


def http_date() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)


def asctime() -> str:
    return (datetime.now(UTC) + timedelta(seconds=2)).strftime("%a %b %e %H:%M:%S %Y")


@pytest.mark.parametrize(
    ("status", "wish"),
    [(429, lambda: "1"), (503, lambda: "1"), (429, http_date), (503, asctime)],
    ids=["429 seconds", "503 seconds", "429 date", "503 asctime"],
)
async def test_a_host_that_asks_to_wait_is_waited_for_and_it_is_said(
    bench: Bench, parts: None, wish: Callable[[], str], status: int
):
    refused: list[float] = []
    early: list[float] = []
    clock = asyncio.get_running_loop().time

    def twist(request: Seen, sent: Sent) -> Sent | Reply:
        if not refused:
            refused.append(clock())
            return Reply(status, headers={"Retry-After": wish()})
        # What was on its way when the host refused may still come.
        if 0.4 < clock() - refused[0] < 0.95:
            early.append(clock() - refused[0])
        return sent

    bench.registry.twist = twist
    await bench.pull()
    assert bench.whole()
    lines = bench.told(Waiting)
    assert len(lines) == 1
    assert lines[0].startswith(f"pullclient: {bench.registry.host} asks to wait ")
    assert f"(status {status})" in lines[0]
    assert early == []


async def test_who_stands_in_the_queue_waits_too(bench: Bench):
    image = bench.registry.publish("a/b", "1", [bytes([number]) for number in range(5)])
    asked: list[float] = []

    def twist(_: Seen, sent: Sent) -> Sent | Reply:
        asked.append(asyncio.get_running_loop().time())
        return Reply(429, headers={"Retry-After": "1"}) if len(asked) == 1 else sent

    bench.registry.twist = twist
    async with Session(jobs=8, per_host=1) as session:
        await pull_in(session, bench.cache, Reference.parse(bench.name), Options(), bench.events.append)
    assert verify(bench.cache) == {image.digest, image.config, *image.layers}
    # All six were past their first look at the clock when the host asked to wait.
    assert asked[1] - asked[0] > 0.9


@pytest.mark.parametrize("wish", ["soon", "-5", "0", ""])
async def test_a_wish_that_is_none_is_an_ordinary_pause(bench: Bench, way: str, wish: str):
    bench.registry.twist = large(lambda *_: Reply(429, headers={"Retry-After": wish}), 1, 2)
    await bench.pull()
    assert bench.whole()
    assert bench.told(Waiting) == []


async def test_a_wish_for_too_long_is_told_in_the_error(bench: Bench, way: str):
    bench.registry.twist = large(lambda *_: Reply(429, headers={"Retry-After": "86400"}))
    with pytest.raises(TooManyRequests, match=rf"\); {bench.registry.host} asks to wait 86400 s, 600 s are granted$"):
        await bench.pull()


@pytest.mark.parametrize(("status", "kind"), [(500, UnknownError), (502, Unavailable), (503, Unavailable)])
async def test_a_fault_of_the_registry_passes_or_is_told(
    bench: Bench, way: str, status: int, kind: type[LayerhouseError]
):
    bench.registry.twist = large(lambda *_: Reply(status, b"<html>oops"), 1, 3, 4)
    await bench.pull()
    assert bench.whole()
    bench.cache.layout.path(BIG).unlink()
    bench.registry.twist = large(lambda *_: Reply(status))
    with pytest.raises(kind, match=rf"^{bench.name}: {BIG}: .*\(status {status}\)$"):
        await bench.pull()


async def test_a_token_that_expires_in_the_middle_is_renewed_once_for_all_parts(bench: Bench, parts: None):
    given: list[str] = []
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{bench.registry.host}/token",service="s"'}

    def give(_: Seen) -> Reply:
        given.append(f"t{len(given)}")
        return Reply(200, json.dumps({"token": given[-1]}).encode())

    answered = 0

    def guard(request: Seen, sent: Sent) -> Sent | Reply:
        nonlocal answered
        valid = "t0" if answered < 4 else "t1"
        if request.headers.get("authorization") != f"Bearer {valid}":
            return Reply(401, headers=challenge)
        answered += 1
        return sent

    bench.registry.behaviours["/token"] = give
    bench.registry.twist = guard
    await bench.pull()
    assert bench.whole()
    assert bench.once
    assert given == ["t0", "t1"]


@asynccontextmanager
async def elsewhere(bench: Bench) -> AsyncIterator[tuple[FaultyRegistry, list[str]]]:
    """Lets the registry redirect the large layer to another host, by an address that holds a fresh signature."""
    signed: list[str] = []
    async with faulty() as store:
        store.blob("store", DATA)

        def redirect(request: Seen, _: Sent) -> Reply:
            signed.append(f"s{len(signed)}")
            to = f"http://{store.host}/v2/store/blobs/{BIG}?sig={signed[-1]}"
            return Reply(307, b"see there", {"Location": to})

        guarded = large(redirect)
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{bench.registry.host}/token",service="s"'}
        bench.registry.behaviours["/token"] = Reply(200, b'{"token":"secret"}')

        def twist(request: Seen, sent: Sent) -> Sent | Reply:
            if request.headers.get("authorization") != "Bearer secret":
                return Reply(401, headers=challenge)
            return guarded(request, sent)

        bench.registry.twist = twist
        yield store, signed


async def test_a_redirect_is_followed_without_authorization_and_parts_go_straight_there(bench: Bench, parts: None):
    async with elsewhere(bench) as (store, signed):
        await bench.pull()
        assert bench.whole()
        assert store.log.once(str(BIG), len(DATA))
        assert len(store.seen) == 7
        assert not [each for each in store.seen if "authorization" in each.headers]
        # The first part is asked for alone: what it learns, the others know.
        assert signed == ["s0"]


async def test_a_signed_address_that_expires_is_resolved_again(bench: Bench, parts: None):
    async with elsewhere(bench) as (store, signed):
        used: dict[str, int] = {}

        def expiring(request: Seen, sent: Sent) -> Sent | Reply:
            signature = request.query["sig"]
            used[signature] = used.get(signature, 0) + 1
            return sent if used[signature] <= 2 else Reply(403, b"<Error>Request has expired</Error>")

        store.twist = expiring
        await bench.pull()
        assert bench.whole()
        assert store.log.once(str(BIG), len(DATA))
        assert 4 <= len(signed) <= 7


async def test_a_store_that_breaks_off_is_resolved_again(bench: Bench, parts: None):
    async with elsewhere(bench) as (store, signed):

        def dying(request: Seen, sent: Sent) -> Sent:
            return replace(sent, cut=0) if request.query["sig"] == "s0" and len(store.seen) > 1 else sent

        store.twist = dying
        await bench.pull()
        assert bench.whole()
        assert store.log.once(str(BIG), len(DATA))
        assert len(signed) >= 2


@asynccontextmanager
async def mirrored(bench: Bench) -> AsyncIterator[FaultyRegistry]:
    async with faulty() as mirror:
        mirror.publish("a/b", "1", [DATA, b"small"])
        bench.mirrors = (f"http://{mirror.host}",)
        yield mirror


async def test_a_mirror_brings_everything(bench: Bench, way: str):
    async with mirrored(bench) as mirror:
        await bench.pull()
        assert bench.whole()
        assert bench.registry.seen == []
        assert mirror.log.once(str(BIG), len(DATA))


async def test_a_mirror_that_is_down_is_warned_of_once(bench: Bench, way: str):
    async with mirrored(bench):
        pass
    await bench.pull()
    assert bench.whole()
    (line,) = bench.told(Warned)
    assert f"{bench.mirrors[0].removeprefix('http://')} cannot be reached: connection refused; going on" in line


async def test_a_mirror_that_lacks_the_blob_is_warned_of_once(bench: Bench, way: str):
    async with mirrored(bench) as mirror:
        mirror.behaviours[PATH] = Reply(404)
        await bench.pull()
        assert bench.whole()
        assert bench.once
        (line,) = bench.told(Warned)
        assert line.startswith(
            f"pullclient: {bench.name}: {BIG} at {mirror.host}: blob unknown to registry (status 404)"
        )
        assert line.endswith("; going on with the next")


async def test_a_mirror_that_lies_is_not_asked_a_second_time(bench: Bench, way: str):
    async with mirrored(bench) as mirror:
        mirror.twist = large(spoilt)
        await bench.pull()
        assert bench.whole(quarantine=True)
        assert bench.once
        assert len(bench.told(Warned)) == 1


async def test_a_mirror_that_breaks_off_is_left_in_the_middle(bench: Bench, way: str):
    async with mirrored(bench) as mirror:
        mirror.twist = large(lambda _, sent: replace(sent, cut=100_000))
        await bench.pull()
        assert bench.whole()
        there, here = (sum(end - at for at, end in each.log.of(str(BIG))) for each in (mirror, bench.registry))
        assert there + here == len(DATA)
        assert there > 0
        assert any(f"(from {mirror.host}); going on with the next" in line for line in bench.told(Warned))
