"""A session opens connections when they are needed, once, and closes them."""

from __future__ import annotations

from client.exchange import Request
from client.session import JOBS, Session
from client.transport import HttpTransport
from ocispec.reference import Reference, Tag
from tests.client.scripted import ScriptedRegistry


async def test_nothing_is_opened_before_the_first_request():
    def connect(_: int) -> HttpTransport:
        raise NotImplementedError

    async with Session(connect=connect) as session:
        session.remote(Reference.parse("node"))


async def test_all_remotes_share_one_transport_with_room_for_every_job(registry: ScriptedRegistry):
    opened = []

    def connect(connections: int) -> HttpTransport:
        opened.append(connections)
        return HttpTransport(connections)

    registry.publish("a/b", "1", [])
    registry.publish("a/c", "1", [])
    async with Session(connect=connect) as session:
        for name in ("a/b", "a/c"):
            await session.remote(Reference.parse(f"{registry.host}/{name}:1")).manifest(Tag("1"))
        async with session.send(Request("GET", f"http://{registry.host}/")) as response:
            assert response.status == 404
    assert len(opened) == 1
    assert opened[0] > JOBS
