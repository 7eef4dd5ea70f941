"""HTTP through httpx, the one place that knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version

import httpcore
import httpx

from client.exchange import Request
from client.network import Backend
from ocispec.errors import HostUnreachable, ResponseInvalid

MAX_REDIRECTS = 10
CONNECT_WITHIN = 15.0
SILENCE = 60.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol)


class HttpTransport:
    """Connections to any number of hosts, kept while the client works.

    Args:
        connections: how many may be open at once, in all.
        silence: how long a host may send nothing, in seconds.
    """

    def __init__(self, connections: int, silence: float = SILENCE) -> None:
        # A pool that is full is waited for without end: those who hold it belong to this same client.
        timeout = httpx.Timeout(silence, connect=CONNECT_WITHIN, pool=None)
        headers = {"User-Agent": f"pullclient/{version('layerhouse')}", "Accept-Encoding": "identity"}
        self._client = httpx.AsyncClient(
            transport=_Connections(connections), headers=headers, timeout=timeout, trust_env=False
        )

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[HttpResponse]:
        """See `client.exchange.Transport`."""
        with _explained(request.url):
            response = await self._follow(self._built(request))
        try:
            yield HttpResponse(response)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()

    def _built(self, request: Request) -> httpx.Request:
        return self._client.build_request(
            request.method, request.url, headers=dict(request.headers), content=request.content
        )

    async def _follow(self, request: httpx.Request) -> httpx.Response:
        for _ in range(MAX_REDIRECTS):
            with _explained(str(request.url)):
                response = await self._client.send(request, stream=True)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or request.method not in ("GET", "HEAD") or not location:
                return response
            await response.aclose()
            request = self._redirected(request, request.url.join(location))
        raise ResponseInvalid(f"{_host(request.url)} redirected more than {MAX_REDIRECTS} times")

    def _redirected(self, request: httpx.Request, url: httpx.URL) -> httpx.Request:
        if url.scheme not in ("http", "https"):
            raise ResponseInvalid(f"{_host(request.url)} redirected to {str(url)!r:.200}: neither http nor https")
        headers = request.headers.copy()
        del headers["Host"]
        if _origin(url) != _origin(request.url):
            headers.pop("Authorization", None)
        return self._client.build_request(request.method, url, headers=headers)


class HttpResponse:
    """See `client.exchange.Response`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    @property
    def url(self) -> str:
        return str(self._response.url)

    async def pieces(self) -> AsyncIterator[bytes]:
        with _explained(self.url):
            async for piece in self._response.aiter_raw():
                yield piece


class _Connections(httpx.AsyncBaseTransport):
    """httpcore's pool over sockets of ours; the trusted certificates are read when TLS is first needed."""

    def __init__(self, connections: int) -> None:
        self._pool = partial(
            httpcore.AsyncConnectionPool,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=30,
            network_backend=Backend(),
        )
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in self._pools:
            context = httpx.create_ssl_context() if request.url.scheme == "https" else None
            self._pools[request.url.scheme] = self._pool(ssl_context=context)
        url = request.url
        response = await self._pools[url.scheme].handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _host(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.InvalidURL, httpx.RemoteProtocolError) as error:
        raise ResponseInvalid(f"{url!r:.200} is no address, or leads to none: {error}") from error
    except _BROKEN as error:
        cause = str(error) or type(error).__name__
        raise HostUnreachable(f"{_host(httpx.URL(url))} cannot be reached: {cause}") from error
