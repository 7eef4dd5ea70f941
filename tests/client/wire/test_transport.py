"""HTTP: what is sent, where redirects lead, and how failures read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from client.hosts.endpoint import Route
from client.wire.connection import Connection
from client.wire.exchange import Request, read
from client.wire.transport import HttpTransport, direct
from ocispec.errors import HostUnreachable, ResponseInvalid
from tests.client.scripted import Reply, ScriptedRegistry, scripted, serving
from tests.client.wire.test_network import CERTIFICATE, server_tls


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    opened = HttpTransport(4, silence=30)
    yield opened
    await opened.aclose()


async def get(transport: HttpTransport, url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    async with transport.send(Request(method, url, headers)) as response:
        body = await read(response.pieces(), 1 << 20)
        assert body is not None
        return response.status, body


async def test_a_request_names_the_client_and_wants_bytes_as_they_are(
    registry: ScriptedRegistry, transport: HttpTransport
):
    registry.behaviours["/x"] = Reply(200, b"hello", {"X-Kind": "y"})
    async with transport.send(Request("GET", f"http://{registry.host}/x")) as response:
        assert (response.status, response.headers["x-kind"]) == (200, "y")
        assert response.url == f"http://{registry.host}/x"
        assert b"".join([piece async for piece in response.pieces()]) == b"hello"
    headers = registry.seen[0].headers
    assert headers["user-agent"].startswith("pullclient/")
    assert headers["accept-encoding"] == "identity"


async def test_a_body_goes_out(registry: ScriptedRegistry, transport: HttpTransport):
    registry.behaviours["/x"] = Reply(201)
    async with transport.send(Request("PUT", f"http://{registry.host}/x", content=b"")) as response:
        assert response.status == 201


async def test_a_redirect_to_another_host_carries_no_authorization(
    registry: ScriptedRegistry, transport: HttpTransport
):
    async with scripted() as elsewhere:
        registry.behaviours["/a"] = Reply(307, headers={"Location": "/b"})
        registry.behaviours["/b"] = Reply(302, headers={"Location": f"http://{elsewhere.host}/c?sig=1"})
        elsewhere.behaviours["/c"] = Reply(200, b"there")
        answer = await get(transport, f"http://{registry.host}/a", Authorization="Bearer secret")
        assert answer == (200, b"there")
        assert [each.headers.get("authorization") for each in registry.seen] == ["Bearer secret"] * 2
        assert "authorization" not in elsewhere.seen[0].headers
        assert elsewhere.seen[0].headers["host"] == elsewhere.host
        assert elsewhere.seen[0].query == {"sig": "1"}


async def test_a_redirect_of_an_upload_is_left_to_the_caller(registry: ScriptedRegistry, transport: HttpTransport):
    registry.behaviours["/a"] = Reply(307, headers={"Location": "/b"})
    assert (await get(transport, f"http://{registry.host}/a", "PUT"))[0] == 307


async def test_redirects_end_somewhere(registry: ScriptedRegistry, transport: HttpTransport):
    registry.behaviours["/a"] = Reply(307, headers={"Location": "/a"})
    with pytest.raises(ResponseInvalid, match=f"{registry.host} redirected more than 10 times"):
        await get(transport, f"http://{registry.host}/a")


@pytest.mark.parametrize("location", ["ftp://x/y", "file:///etc/passwd", "http://a:b:c/"])
async def test_a_redirect_leads_to_http_only(registry: ScriptedRegistry, transport: HttpTransport, location: str):
    registry.behaviours["/a"] = Reply(307, headers={"Location": location})
    with pytest.raises(ResponseInvalid):
        await get(transport, f"http://{registry.host}/a")


async def test_a_connection_is_kept_for_the_next_request(transport: HttpTransport):
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        assert [await get(transport, url) for _ in range(2)] == [(200, b"ok")] * 2
    assert connections == 1


async def test_a_refused_connection_names_host_and_cause(transport: HttpTransport):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(HostUnreachable, match=f"^{host} cannot be reached: connection refused$"):
        await get(transport, f"http://{host}/v2/")


async def test_a_host_without_a_trusted_certificate_is_refused():
    async with scripted(server_tls()) as registry:
        transport = HttpTransport(1)
        with pytest.raises(HostUnreachable, match="its certificate is not trusted"):
            await get(transport, f"https://{registry.host}/v2/")
        await transport.aclose()


async def test_a_trusted_host_is_reached_over_tls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with scripted(server_tls()) as registry:
        registry.behaviours["/x"] = Reply(200, b"x" * 300_000)
        transport = HttpTransport(1)
        assert await get(transport, f"https://{registry.host}/x") == (200, b"x" * 300_000)
        await transport.aclose()


async def test_an_answer_that_is_no_http_is_said_to_be_none(transport: HttpTransport):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n")

    async with serving(serve) as port:
        with pytest.raises(HostUnreachable, match=f"127.0.0.1:{port} cannot be reached"):
            await get(transport, f"http://127.0.0.1:{port}/")


async def test_silence_ends_a_transfer(registry: ScriptedRegistry):
    never = asyncio.Event()
    registry.behaviours["/x"] = Reply(200, b"late", wait=never.wait)
    transport = HttpTransport(1, silence=0.05)
    with pytest.raises(HostUnreachable, match=r"no answer within 0\.05 s"):
        await get(transport, f"http://{registry.host}/x")
    await transport.aclose()


async def test_a_url_that_is_none_is_refused(transport: HttpTransport):
    with pytest.raises(ResponseInvalid, match="is no address"):
        await get(transport, "http://[::1/")


async def test_a_host_is_reached_directly_unless_told():
    assert await direct("http", "x", None) == Route()


async def test_connections_can_be_told_apart(registry: ScriptedRegistry, transport: HttpTransport):
    await get(transport, f"http://{registry.host}/x")
    (pool,) = transport._client._transport._pools.values()
    (kept,) = pool.connections
    assert "127.0.0.1" in kept.info()
    assert "not connected" in Connection(kept._origin, None).info()
