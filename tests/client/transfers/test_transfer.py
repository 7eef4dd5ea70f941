"""One blob over the network: parts where the host serves them, one stream where not, and on from where it broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from client.registries.remote import Body
from client.transfers import transfer
from client.transfers.slots import Slots
from client.transfers.transfer import LARGEST_PART, SMALLEST_PART, part_size
from ocispec.errors import BlobUnknown, ContentTruncated, DigestMismatch, LayerhouseError, ResponseInvalid
from storage.partials import Partials
from tests.client.faulty import FaultyRegistry, Sent, faulty, whole
from tests.client.scripted import Reply, Seen
from tests.client.transferring import DATA, DIGEST, MIB, WRONG, Address, Bench, wrongly

PART = 512 * 1024


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(transfer, name, PART)


@pytest.fixture
async def registry() -> AsyncIterator[FaultyRegistry]:
    async with faulty() as server:
        server.blob("a/b", DATA)
        yield server


@pytest.fixture
def bench(registry: FaultyRegistry, tmp_path: Path) -> Bench:
    return Bench(registry, tmp_path)


def whole_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the blob small enough for one stream."""
    for name in ("SMALLEST_PART", "LARGEST_PART"):
        monkeypatch.setattr(transfer, name, 8 * MIB)


async def test_a_blob_comes_in_parts_each_once(bench: Bench):
    await bench.run()
    assert bench.once
    assert len(bench.ranges) == 9
    assert bench.ranges[0] == f"bytes=0-{PART - 1}"
    assert None not in bench.ranges


async def test_a_blob_of_one_part_comes_in_one_stream(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    whole_stream(monkeypatch)
    await bench.run()
    assert bench.once
    assert bench.ranges == [None]


async def test_what_is_here_already_is_not_asked_for(bench: Bench):
    async with Partials(bench.root).opened(DIGEST, len(DATA)) as partial:
        for start, end in ((0, 100), (PART, 3 * PART), (len(DATA) - 5, len(DATA))):
            part = partial.part(start, end)
            part.take(memoryview(DATA)[start:end])
            part.close()
    await bench.run()
    assert bench.registry.log.of(str(DIGEST))[:2] == [(100, PART), (3 * PART, 4 * PART)]
    assert sum(end - start for start, end in bench.registry.log.of(str(DIGEST))) == len(DATA) - 105 - 2 * PART


async def test_nothing_is_asked_for_where_all_is_here(bench: Bench):
    await bench.run()
    bench.registry.forget()
    await bench.run()
    assert bench.ranges == []


async def test_the_first_answer_is_waited_for_before_others_are_asked(bench: Bench):
    asked_before_it: list[int] = []

    async def pace() -> None:
        if not asked_before_it:
            await asyncio.sleep(0.02)
            asked_before_it.append(len(bench.registry.seen))

    def twist(_: Seen, sent: Sent) -> Sent | Reply:
        # The first answer tells nothing yet: the host is busy.
        return Reply(503, wait=pace) if len(bench.registry.seen) == 1 else sent

    bench.registry.twist = twist
    await bench.run()
    assert asked_before_it == [1]
    assert bench.once


async def test_a_host_without_ranges_sends_one_stream_and_is_asked_once(bench: Bench):
    bench.registry.twist = lambda _, sent: whole(sent, DATA)
    await bench.run()
    assert len(bench.ranges) == 1
    assert bench.once


@pytest.mark.parametrize("number", [2, 5, 9])
async def test_a_part_that_is_answered_with_200_makes_it_one_stream(bench: Bench, number: int):
    def twist(_: Seen, sent: Sent) -> Sent:
        return whole(sent, DATA) if len(bench.registry.seen) == number else sent

    bench.registry.twist = twist
    await bench.run()
    assert bench.ranges[-1] is None
    assert len(bench.ranges) <= 10


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("number", [1, 4])
async def test_a_wrong_content_range_makes_it_one_stream(bench: Bench, kind: str, number: int):
    def twist(request: Seen, sent: Sent) -> Sent:
        wrong = "range" in request.headers and len(bench.registry.seen) >= number
        return wrongly(kind, sent) if wrong else sent

    bench.registry.twist = twist
    await bench.run()
    assert bench.ranges[-1] is None
    assert bench.ranges.count(None) == 1


@pytest.mark.parametrize("kind", ["shifted", "absent"])
async def test_a_stream_that_cannot_go_on_begins_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str):
    whole_stream(monkeypatch)

    def twist(request: Seen, sent: Sent) -> Sent:
        if "range" in request.headers:
            return wrongly(kind, sent)
        return replace(sent, cut=MIB) if len(bench.registry.seen) == 1 else sent

    bench.registry.twist = twist
    await bench.run()
    assert bench.ranges == [None, f"bytes={MIB}-{len(DATA) - 1}", None]


async def test_a_part_that_brings_more_than_was_asked_for_writes_over_nothing(bench: Bench):
    """Chunked, so that nothing but the body tells. What lies behind the part may be hashed already."""

    def twist(request: Seen, sent: Sent) -> Sent:
        if len(bench.registry.seen) != 4:
            return sent
        lies = bytes(sent.body) + b"x" * PART
        headers = {"Content-Range": sent.headers["Content-Range"], "Transfer-Encoding": "chunked"}
        return replace(sent, headers=headers, body=memoryview(b"%x\r\n%b\r\n0\r\n\r\n" % (len(lies), lies)))

    bench.registry.twist = twist
    await bench.run()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "parts"])
async def test_a_body_that_breaks_off_goes_on_where_it_broke(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool
):
    if stream:
        whole_stream(monkeypatch)
    bench.registry.twist = lambda _, sent: replace(sent, cut=300_000) if len(sent.body) > 300_000 else sent
    await bench.run()
    assert bench.once
    assert len(bench.ranges) >= 14


async def test_what_makes_progress_is_tried_for_as_long_as_it_does(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    whole_stream(monkeypatch)
    bench.registry.twist = lambda _, sent: replace(sent, cut=70_000) if len(sent.body) > 70_000 else sent
    await bench.run()
    assert bench.once
    assert len(bench.ranges) > 50


async def test_what_makes_none_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    whole_stream(monkeypatch)
    bench.registry.twist = lambda _, sent: replace(sent, cut=100)
    with pytest.raises(ContentTruncated, match=f"ended after 500 of {len(DATA)} bytes: .* the connection was closed"):
        await bench.run()
    assert len(bench.ranges) == 5


async def test_a_flaky_host_without_ranges_is_given_up_too(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Every second try gets further than the one before it, and none gets to the end."""
    whole_stream(monkeypatch)

    def twist(_: Seen, sent: Sent) -> Sent:
        return replace(whole(sent, DATA), cut=(3 if len(bench.registry.seen) % 2 else 1) * MIB)

    bench.registry.twist = twist
    with pytest.raises(ContentTruncated, match="ended after"):
        await bench.run()
    assert len(bench.ranges) < 12


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "parts"])
async def test_a_host_that_has_less_than_it_should_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool
):
    if stream:
        whole_stream(monkeypatch)

    def twist(request: Seen, sent: Sent) -> Sent | Reply:
        if sent.first >= PART:
            return Reply(416, headers={"Content-Range": f"bytes */{PART}"})
        body = sent.body[:PART]
        return replace(sent, headers={**sent.headers, "Content-Length": str(len(body))}, body=body)

    bench.registry.twist = twist
    with pytest.raises(LayerhouseError, match=rf"ended after \d+ of {len(DATA)} bytes: the host has no more"):
        await bench.run()


async def test_more_than_the_blob_has_is_a_mismatch(bench: Bench):
    bench.registry.twist = lambda _, sent: replace(whole(sent, DATA), body=memoryview(DATA + b"x"), headers={})
    with pytest.raises(DigestMismatch, match=f"more than the expected {len(DATA)}"):
        await bench.run()


async def test_an_error_of_the_source_ends_it(bench: Bench):
    bench.registry.twist = lambda *_: Reply(404)
    with pytest.raises(BlobUnknown, match="blob unknown"):
        await bench.run()


async def test_an_answer_that_is_no_blob_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    whole_stream(monkeypatch)
    monkeypatch.setattr(Address, "part", refusing)
    with pytest.raises(ResponseInvalid, match="no sense"):
        await bench.run()


@asynccontextmanager
async def refusing(*_: object, **__: object) -> AsyncIterator[Body]:
    raise ResponseInvalid("no sense")
    yield  # type: ignore[unreachable]


async def test_no_more_requests_run_than_there_are_places(bench: Bench):
    bench.slots = Slots(2, 2)
    running, most, full = 0, 0, asyncio.Event()

    async def pace() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if most == 2:
            full.set()
        await full.wait()
        await asyncio.sleep(0.002)
        running -= 1

    bench.registry.twist = lambda _, sent: replace(sent, pace=pace, piece=PART)
    await bench.run()
    assert most == 2


async def test_cancelled_it_keeps_what_came(bench: Bench):
    never, cut = asyncio.Event(), 400_000
    bench.registry.twist = lambda _, sent: replace(sent, cut=min(cut, len(sent.body)), then=never.wait)
    running = asyncio.create_task(bench.run())
    while len(bench.registry.log.of(str(DIGEST))) < 6:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    never.set()
    bench.registry.twist = lambda _, sent: sent
    await bench.run()
    assert bench.once


def test_parts_are_8_to_16_mib_and_give_each_stream_several(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    assert part_size(1, 6) == part_size(100 * MIB, 6) == SMALLEST_PART == 8 * MIB
    assert part_size(10_000 * MIB, 6) == part_size(10**11, 1) == LARGEST_PART == 16 * MIB
    assert part_size(240 * MIB + 1, 6) == 11 * MIB
    assert part_size(5 * MIB, 0) == 8 * MIB


async def test_a_size_that_nobody_has_makes_no_more_parts_than_one_can_hold(tmp_path: Path):
    size = 2**62
    async with Partials(tmp_path).opened(DIGEST, size) as partial:
        assert len(partial.missing(part_size(size, 6))) <= 10_001
