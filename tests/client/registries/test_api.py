"""One endpoint: what is sent there and with whose permission, what is asked again, and how refusals read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from client.hosts.endpoint import Endpoint
from client.registries.api import Api, counted, expect, origin, reached, refusal, within
from client.registries.retrying import Patience
from client.session import Session
from client.wire.exchange import Response
from ocispec.errors import (
    BlobUnknown,
    ContentTruncated,
    Denied,
    HostUnreachable,
    ManifestUnknown,
    NameUnknown,
    RequestInvalid,
    ResponseInvalid,
    TooManyRequests,
    Unavailable,
    UnknownError,
)
from ocispec.reference import RepositoryName
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted

REPOSITORY = RepositoryName("a/b")


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session(patience=Patience(first=0.001)) as opened:
        yield opened


def at(session: Session, host: str, **members: object) -> Api:
    return session._api(Endpoint(f"http://{host}/v2", host, REPOSITORY, host, **members))


async def status(api: Api, method: str, path: str, **options: object) -> int:
    async with api.send(method, path, **options) as response:
        return response.status


async def test_a_request_goes_below_the_api_with_the_endpoints_headers_and_namespace(
    registry: ScriptedRegistry, session: Session
):
    api = at(session, registry.host, headers={"X-Key": "k", "Accept": "no"}, namespace="docker.io")
    await status(api, "GET", "a/b/blobs/x", headers={"Accept": "a/b"})
    await status(api, "GET", "a/b/tags/list?n=5")
    assert [each.target for each in registry.seen] == [
        "/v2/a/b/blobs/x?ns=docker.io",
        "/v2/a/b/tags/list?n=5&ns=docker.io",
    ]
    assert (registry.seen[0].headers["x-key"], registry.seen[0].headers["accept"]) == ("k", "a/b")


async def test_an_address_elsewhere_gets_nothing_of_the_endpoints(registry: ScriptedRegistry, session: Session):
    async with scripted() as elsewhere:
        elsewhere.behaviours["/up"] = Reply(
            401, headers={"WWW-Authenticate": f'Bearer realm="http://{registry.host}/t"'}
        )
        api = at(session, registry.host, headers={"X-Key": "k"})
        assert await status(api, "PUT", f"http://{elsewhere.host}/up", content=b"x") == 401
        assert "x-key" not in elsewhere.seen[0].headers
        assert "authorization" not in elsewhere.seen[0].headers
    assert registry.seen == []


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_reading_is_tried_again_and_writing_is_not(registry: ScriptedRegistry, session: Session, code: int):
    registry.behaviours["/v2/x"] = lambda _: Reply(code if len(registry.seen) < 3 else 200)
    api = at(session, registry.host)
    assert await status(api, "GET", "x") == 200
    registry.seen.clear()
    assert await status(api, "POST", "x") == code
    assert await status(api, "GET", "x", again=False) == code
    registry.seen.clear()
    assert await status(api, "PATCH", "x", again=True) == 200
    assert len(registry.seen) == 3


async def test_a_host_that_stays_away_is_its_own_error(registry: ScriptedRegistry, session: Session):
    registry.behaviours["/v2/x"] = Reply(503, b'{"errors":[{"code":"UNAVAILABLE","message":"maintenance"}]}')
    with pytest.raises(Unavailable, match=r"^maintenance \(status 503\)$"):
        await status(at(session, registry.host), "GET", "x")
    assert len(registry.seen) == 5


async def test_without_patience_it_is_asked_once(registry: ScriptedRegistry, session: Session):
    registry.behaviours["/v2/x"] = Reply(429, headers={"Retry-After": "1"})
    endpoint = Endpoint(f"http://{registry.host}/v2", registry.host, REPOSITORY, registry.host)
    with pytest.raises(TooManyRequests):
        await status(Api(endpoint, session.send, session._access), "GET", "x")
    assert len(registry.seen) == 1


async def test_a_challenge_of_the_host_that_a_redirect_led_to_is_not_answered(
    registry: ScriptedRegistry, session: Session
):
    async with scripted() as elsewhere:
        registry.behaviours["/v2/x"] = Reply(307, headers={"Location": f"http://{elsewhere.host}/x"})
        elsewhere.behaviours["/x"] = Reply(
            401, headers={"WWW-Authenticate": f'Bearer realm="http://{elsewhere.host}/t"'}
        )
        assert await status(at(session, registry.host), "GET", "x") == 401
        assert elsewhere.paths() == ["/x"]


async def test_of_several_ways_the_first_that_leads_there_is_taken(registry: ScriptedRegistry, session: Session):
    async with scripted() as gone:
        pass
    dead, alive = at(session, gone.host), at(session, registry.host)
    told: list[str] = []
    assert await reached([dead, alive, dead], told.append) is alive
    assert len(told) == 1
    assert told[0].endswith("; going on with the next way there")
    assert await reached([dead], told.append) is dead
    assert len(told) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(404), BlobUnknown, "blob unknown to registry (status 404)"),
        (Reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}'), BlobUnknown, "no (status 404)"),
        (Reply(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}'), NameUnknown, "repository name not known to regis"),
        (Reply(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"m"}]}'), ManifestUnknown, "m (status 404)"),
        (Reply(403, b'{"errors":[{"code":"DENIED","message":"\x1b[31mred\\n"}]}'), Denied, "denied"),
        (Reply(403, b'{"errors":[{"code":"DENIED","message":"a\\u001b[31m\\nb"}]}'), Denied, "a [31m b (status 403)"),
        (Reply(400, b'{"a":1,"a":2}'), RequestInvalid, "the registry does not take the request (status 400)"),
        (Reply(500, b"x" * 100_000), UnknownError, "unknown error (status 500)"),
        (Reply(500, b"x", promised=9), UnknownError, "unknown error (status 500)"),
        (Reply(201), UnknownError, "unknown error (status 201)"),
    ],
)  # fmt: skip
async def test_each_refusal_is_one_printable_line(
    registry: ScriptedRegistry, session: Session, reply: Reply, kind: type[Exception], text: str
):
    registry.behaviours["/v2/x"] = reply
    async with at(session, registry.host).send("GET", "x", again=False) as response:
        with pytest.raises(kind) as raised:
            await expect(response, 200, BlobUnknown)
    assert text in str(raised.value)
    assert str(raised.value).isprintable()


async def test_a_long_message_is_cut_and_headers_are_kept(registry: ScriptedRegistry, session: Session):
    body = b'{"errors":[{"code":"DENIED","message":"%s","detail":{"a":1}}]}' % (b"x" * 9000)
    registry.behaviours["/v2/x"] = Reply(403, body, {"X-Why": "y"})
    async with at(session, registry.host).send("GET", "x") as response:
        error = await refusal(response, BlobUnknown)
    assert len(error.message) < 600
    assert (error.detail, error.headers["x-why"]) == ({"a": 1}, "y")


async def test_what_is_expected_raises_nothing(registry: ScriptedRegistry, session: Session):
    registry.behaviours["/v2/x"] = Reply(200)
    async with at(session, registry.host).send("GET", "x") as response:
        await expect(response, 200, BlobUnknown)


@pytest.mark.parametrize(("promised", "text"), [(9, "ended after 3 of 9 bytes: "), (None, None)])
async def test_a_counted_body_tells_where_it_ended(
    registry: ScriptedRegistry, session: Session, promised: int | None, text: str | None
):
    registry.behaviours["/v2/x"] = Reply(200, b"abc", promised=promised)

    async def read(response: Response) -> bytes:
        return b"".join([piece async for piece in counted(response)])

    async with at(session, registry.host).send("GET", "x") as response:
        if text is None:
            assert await read(response) == b"abc"
        else:
            with pytest.raises(ContentTruncated, match=text):
                await read(response)


def test_a_place_stands_once_before_a_message_and_all_else_is_kept():
    def fail() -> None:
        with within("here"), within("here: there"):
            raise HostUnreachable("it broke", detail=[1], headers={"retry-after": "5"})

    with pytest.raises(HostUnreachable, match=r"^here: there: it broke$") as raised:
        fail()
    assert (raised.value.detail, raised.value.headers) == ([1], {"retry-after": "5"})


def test_what_is_no_error_of_ours_passes_a_place_untouched():
    def fail() -> None:
        with within("here"):
            raise ZeroDivisionError("x")

    with pytest.raises(ZeroDivisionError, match=r"^x$"):
        fail()


def test_an_origin_is_scheme_host_and_port():
    assert origin("https://a.example:5000/v2/x?y") == ("https", "a.example:5000")


async def test_an_upload_that_leads_nowhere_is_the_registrys_fault(registry: ScriptedRegistry, session: Session):
    with pytest.raises(ResponseInvalid, match=r"^'http://\[::1/x' is no address"):
        await status(at(session, registry.host), "PUT", "http://[::1/x", content=b"")


async def test_a_token_that_another_request_asked_for_and_that_ended_since_is_asked_for_anew(
    registry: ScriptedRegistry, session: Session
):
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token",service="s"'}
    other_sent, login_began = asyncio.Event(), asyncio.Event()
    tokens = iter(("t0", "t1"))

    def give(_: Seen) -> Reply:
        login_began.set()
        return Reply(200, json.dumps({"token": next(tokens)}).encode(), wait=other_sent.wait)

    def first(seen: Seen) -> Reply:
        good = seen.headers.get("authorization") == "Bearer t0"
        return Reply(200) if good else Reply(401, headers=challenge)

    def other(seen: Seen) -> Reply:
        other_sent.set()
        good = seen.headers.get("authorization") == "Bearer t1"
        return Reply(200) if good else Reply(401, headers=challenge)

    registry.behaviours |= {"/token": give, "/v2/first": first, "/v2/other": other}
    api = at(session, registry.host)
    waiting = asyncio.create_task(status(api, "GET", "first"))
    await login_began.wait()
    assert (await status(api, "GET", "other"), await waiting) == (200, 200)
    sent = [each.headers.get("authorization") for each in registry.seen if each.path == "/v2/other"]
    assert sent == [None, "Bearer t0", "Bearer t1"]
