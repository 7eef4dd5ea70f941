"""What handlers tell whoever listens."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.reference import RepositoryName
from registry import context
from registry.events import Event, Events, Target, What

REPOSITORY = RepositoryName.parse("a/b")


class Ears:
    def __init__(self, name: str, heard: list[tuple[str, Event]]) -> None:
        self.name, self.heard = name, heard

    async def happened(self, event: Event) -> None:
        self.heard.append((self.name, event))


def scope() -> context.Scope:
    found: context.Scope = {
        "type": "http",
        "method": "PUT",
        "scheme": "https",
        "client": ("192.0.2.1", 40000),
        "headers": [(b"host", b"registry.example"), (b"user-agent", b"docker/27")],
    }
    context.set_request_id(found, "id-1")
    return found


async def test_an_event_tells_who_did_what_and_where_from() -> None:
    heard: list[tuple[str, Event]] = []
    events = Events(Ears("a", heard), Ears("b", heard), address=lambda scope, path: f"{scope['scheme']}://x{path}")
    target = Target(REPOSITORY, Digest.of(b""), size=0)
    await events.tell(What.PUSH, scope(), target)
    assert [name for name, _ in heard] == ["a", "b"]
    event = heard[0][1]
    assert event is heard[1][1]
    assert (event.what, event.target, event.actor) == ("push", target, None)
    assert (event.address, event.host) == ("192.0.2.1:40000", "registry.example")
    assert (event.method, event.useragent, event.request_id) == ("PUT", "docker/27", "id-1")
    assert event.base == "https://x"


async def test_each_event_has_an_id_of_its_own() -> None:
    heard: list[tuple[str, Event]] = []
    events = Events(Ears("a", heard))
    for _ in range(3):
        await events.tell(What.DELETE, scope(), Target(REPOSITORY))
    assert len({event.id for _, event in heard}) == 3


async def test_where_nobody_listens_nothing_is_looked_at() -> None:
    events = Events()
    assert not events.wanted
    await events.tell(What.PULL, {}, Target(REPOSITORY))
