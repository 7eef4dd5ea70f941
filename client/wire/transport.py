"""HTTP through httpx, the one place that knows it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Protocol

import httpcore
import httpx

from client.hosts.endpoint import Route, Tls
from client.hosts.tls import context
from client.wire.connection import KEEPALIVE, Body, Connection, Sink
from client.wire.exchange import Request
from client.wire.network import Backend
from ocispec.errors import HostUnreachable, NoConnection, ResponseInvalid
from storage.threads import finish

MAX_REDIRECTS = 10
CONNECT_WITHIN = 15.0
SILENCE = 30.0
# Below this a body is read in pieces: a visit to a thread costs more than it saves.
_SMALL = 256 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNCONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError, httpcore.UnsupportedProtocol)
_BROKEN = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class Routes(Protocol):
    """Tells how a host is reached."""

    async def __call__(self, scheme: str, host: str, port: int | None, *, behind: str | None = None) -> Route:
        """See `client.hosts.hosts.Hosts.route`."""


async def direct(scheme: str, host: str, port: int | None, *, behind: str | None = None) -> Route:  # noqa: ARG001
    """Routes every host without a proxy, by the system's certificates."""
    return Route()


class HttpTransport:
    """Connections to any number of hosts, kept while the client works.

    Args:
        connections: how many may be open at once by one route.
        silence: how long a host may send nothing, in seconds.
        routes: tells how a host is reached.
    """

    def __init__(self, connections: int, silence: float = SILENCE, routes: Routes = direct) -> None:
        # A pool that is full is waited for without end: those who hold it belong to this same client.
        timeout = httpx.Timeout(silence, connect=CONNECT_WITHIN, pool=None)
        headers = {"User-Agent": f"pullclient/{version('layerhouse')}", "Accept-Encoding": "identity"}
        self._silence = silence
        self._threads = ThreadPoolExecutor(connections, "transfer")
        self._client = httpx.AsyncClient(
            transport=_Connections(connections, routes), headers=headers, timeout=timeout, trust_env=False
        )

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[HttpResponse]:
        """See `client.wire.exchange.Transport`."""
        with _explained(request.url):
            response = await self._follow(self._built(request))
        try:
            yield HttpResponse(response, self._silence, self._threads)
            if _empty(response) and not response.is_stream_consumed:
                # Only what was read to its end leaves the connection for the next request.
                await anext(response.aiter_raw(), None)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        await self._client.aclose()
        self._threads.shutdown(wait=False)

    def _built(self, request: Request) -> httpx.Request:
        return self._client.build_request(
            request.method,
            request.url,
            headers=dict(request.headers),
            content=request.content,
            extensions={"behind": request.behind},
        )

    async def _follow(self, request: httpx.Request) -> httpx.Response:
        for _ in range(MAX_REDIRECTS):
            with _explained(str(request.url)):
                response = await self._client.send(request, stream=True)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or request.method not in ("GET", "HEAD") or not location:
                return response
            await _left(response)
            request = self._redirected(request, request.url.join(location))
        raise ResponseInvalid(f"{_host(request.url)} redirected more than {MAX_REDIRECTS} times")

    def _redirected(self, request: httpx.Request, url: httpx.URL) -> httpx.Request:
        if url.scheme not in ("http", "https"):
            raise ResponseInvalid(f"{_host(request.url)} redirected to {str(url)!r:.200}: neither http nor https")
        headers = request.headers.copy()
        del headers["Host"]
        if _origin(url) != _origin(request.url):
            headers.pop("Authorization", None)
        behind = request.extensions["behind"] or str(request.url)
        return self._client.build_request(request.method, url, headers=headers, extensions={"behind": behind})


class HttpResponse:
    """See `client.wire.exchange.Response`."""

    def __init__(self, response: httpx.Response, silence: float, threads: ThreadPoolExecutor) -> None:
        self._response = response
        self._silence = silence
        self._threads = threads

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

    async def pour(self, sink: Sink) -> None:
        body = self._response.extensions.get("body")
        if isinstance(body, Body) and body.size is not None and body.size > _SMALL:
            with _explained(self.url):
                await body.receive(sink, self._silence, self._threads)
        else:
            async for piece in self.pieces():
                await finish(sink, memoryview(piece))


class _Pool(httpcore.AsyncConnectionPool):
    """httpcore's pool over connections of ours."""

    def __init__(self, connections: int, context: ssl.SSLContext | None) -> None:
        super().__init__(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE)
        self._context = context

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return Connection(origin, self._context if origin.scheme == b"https" else None)


class _Connections(httpx.AsyncBaseTransport):
    """A pool for every route; trusted certificates are read when TLS is first needed."""

    def __init__(self, connections: int, routes: Routes) -> None:
        self._limit = connections
        self._routes = routes
        self._pools: dict[tuple[str, Route], httpcore.AsyncConnectionPool] = {}
        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._making = asyncio.Lock()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        route = await self._routes(url.scheme, url.host, url.port, behind=request.extensions["behind"])
        pool = await self._pool(url.scheme, route)
        sent = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        try:
            response = await pool.handle_async_request(sent)
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
            if route.proxy:
                raise httpcore.ProxyError(f"through the proxy {httpx.URL(route.proxy).host}: {error}") from error
            raise
        stream = _Stream(response)
        return httpx.Response(
            response.status, headers=response.headers, stream=stream, extensions=dict(response.extensions)
        )

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def _pool(self, scheme: str, route: Route) -> httpcore.AsyncConnectionPool:
        async with self._making:
            if (scheme, route) not in self._pools:
                self._pools[scheme, route] = await self._opened(scheme, route)
            return self._pools[scheme, route]

    async def _opened(self, scheme: str, route: Route) -> httpcore.AsyncConnectionPool:
        trusted = await self._context(route.tls) if scheme == "https" else None
        if route.proxy is None:
            return _Pool(self._limit, trusted)
        proxy = httpx.Proxy(route.proxy)
        return httpcore.AsyncHTTPProxy(
            httpcore.URL(str(proxy.url)),
            proxy_auth=proxy.raw_auth,
            ssl_context=trusted,
            proxy_ssl_context=await self._proxy_context(proxy.url) if proxy.url.scheme == "https" else None,
            max_connections=self._limit,
            max_keepalive_connections=self._limit,
            keepalive_expiry=KEEPALIVE,
            network_backend=Backend(),
        )

    async def _proxy_context(self, url: httpx.URL) -> ssl.SSLContext:
        return await self._context((await self._routes("https", url.host, url.port)).tls)

    async def _context(self, tls: Tls) -> ssl.SSLContext:
        if tls not in self._contexts:
            self._contexts[tls] = await finish(context, tls)
        return self._contexts[tls]


class _Stream(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()


async def _left(response: httpx.Response) -> None:
    """Closes a response that nobody reads; a small one is read first, which leaves its connection in use."""
    if int(response.headers.get("Content-Length", _SMALL)) < _SMALL:
        with _explained(str(response.url)):
            await response.aread()
    await response.aclose()


def _empty(response: httpx.Response) -> bool:
    bare = response.request.method == "HEAD" or response.status_code == 204
    return bare or response.headers.get("Content-Length") == "0"


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
        kind = NoConnection if isinstance(error, _UNCONNECTED) else HostUnreachable
        raise kind(f"{_host(httpx.URL(url))} cannot be reached: {cause}") from error
