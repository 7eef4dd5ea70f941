"""A session opens connections when they are needed, once, and closes them."""

from __future__ import annotations

from client.progress import Event, Waiting, Warned
from client.registries.retrying import Patience
from client.session import JOBS, Session
from client.wire.exchange import Request
from client.wire.transport import HttpTransport
from ocispec.reference import Reference, Tag
from tests.client.scripted import Reply, ScriptedRegistry, scripted


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


async def test_waits_and_warnings_are_reported_to_whoever_listens_by_then(registry: ScriptedRegistry):
    async with scripted() as gone:
        pass
    image = registry.publish("a/b", "1", [])
    known = registry.behaviours["/v2/a/b/manifests/1"]
    registry.behaviours["/v2/a/b/manifests/1"] = lambda _: (
        Reply(429, headers={"Retry-After": "1"}) if len(registry.seen) == 1 else known
    )
    events: list[Event] = []
    async with Session(patience=Patience(first=0.001), mirrors=(f"http://{gone.host}",)) as session:
        remote = session.remote(Reference.parse(f"{registry.host}/a/b:1"))
        session.report = events.append
        assert str((await remote.manifest(Tag("1")))[0]) == image.digest
    warned, waiting = events
    assert isinstance(warned, Warned)
    assert warned.reference == remote.reference
    assert warned.message.endswith("connection refused; going on with the next")
    assert isinstance(waiting, Waiting)
    assert (waiting.host, waiting.seconds) == (registry.host, 1)


async def test_the_api_of_a_host_is_the_registrys_own_and_not_a_mirrors(registry: ScriptedRegistry):
    async with Session(mirrors=("http://127.0.0.1:1",)) as session:
        api = await session.api(registry.host)
        assert api.endpoint.host == registry.host
        async with api.send("GET", "") as response:
            assert response.status == 404


async def test_a_remote_asks_for_the_access_it_is_made_for():
    async with Session() as session:
        (api,) = await session.remote(Reference.parse("localhost:1/a"), "pull", "push").endpoints()
        assert [str(each) for each in api._scopes] == ["repository:a:pull,push"]
