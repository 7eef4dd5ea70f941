"""Requests that the registry makes itself, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ocispec.errors import HostUnreachable, ResponseInvalid
from registry.outgoing import Outgoing, shown
from tests.support.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    yield from receiving()


async def ask(url: str, body: bytes = b'{"events": [{}]}', **options):
    async with Outgoing(5) as outgoing:
        return await outgoing.ask("POST", url, content=body, **options)


async def test_what_was_asked_arrives_and_what_was_answered_comes_back(receiver: Receiver) -> None:
    receiver.headers, receiver.body = {"X-Answer": "yes"}, b"taken"
    answer = await ask(receiver.url, headers={"X-Ask": ["a"]})
    assert (answer.status, answer.headers["x-answer"], answer.body) == (200, "yes", b"taken")
    assert receiver.came[0].headers["x-ask"] == "a"
    assert receiver.came[0].headers["user-agent"] == "layerhouse"


async def test_a_header_may_have_several_values(receiver: Receiver) -> None:
    await ask(receiver.url, headers={"X-Ask": ["a", "b"]})
    assert receiver.came[0].headers["x-ask"] == "a, b"


async def test_a_redirect_is_an_answer(receiver: Receiver) -> None:
    receiver.behave, receiver.headers = (lambda _: 302), {"Location": "/elsewhere"}
    answer = await ask(receiver.url)
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert len(receiver.came) == 1


async def test_an_answer_that_is_too_long_is_refused_or_cut_off(receiver: Receiver) -> None:
    receiver.body = b"x" * 100_000
    with pytest.raises(ResponseInvalid, match=rf"^{receiver.url} answered with more than 1000 bytes$"):
        await ask(receiver.url, limit=1000)
    assert (await ask(receiver.url, limit=1000, cut=True)).body == b"x" * 1000
    assert (await ask(receiver.url, limit=100_000)).body == receiver.body


async def test_a_server_that_stalls_is_given_up(receiver: Receiver) -> None:
    receiver.behave = lambda _: "stall"
    with pytest.raises(HostUnreachable, match=r"^http://127.0.0.1:\d+/events: no answer within 0.2 s$"):
        await ask(receiver.url, timeout=0.2)


async def test_a_server_that_answers_a_byte_now_and_then_is_given_up() -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HostUnreachable, match=r"no answer within 0.3 s$"):
            await ask(f"http://127.0.0.1:{port}/", timeout=0.3)
        await ended.wait()


async def test_a_server_that_hangs_up_or_is_not_there_is_told_with_the_cause(receiver: Receiver) -> None:
    receiver.behave = lambda _: "drop"
    with pytest.raises(HostUnreachable, match=rf"^{receiver.url}: \S"):
        await ask(receiver.url)
    receiver.stop()
    with pytest.raises(HostUnreachable, match=rf"^{receiver.url}: Connection refused$"):
        await ask(receiver.url.replace("http://", "http://somebody:secret@"))


@pytest.mark.parametrize("url", ["http://[", "nothing", "http://\udc80/"])
async def test_what_is_no_address_is_no_answer(url: str) -> None:
    with pytest.raises(HostUnreachable):
        await ask(url)


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    assert shown("https://user:password@host:1/path?token=secret#part") == "https://host:1/path"
    assert shown("http://host:port") == "(no URL)"
