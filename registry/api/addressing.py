"""How clients ask for what is mirrored, led to the one name that each repository has here.

By `?ns=` (containerd, docker with its store, pullclient: distribution-spec, "Registry Proxying"), by the registry's
name as the first part of the repository's (podman, plain docker), or without either where a default is set (docker's
`registry-mirrors`). The configuration alone says which registries there are: what a client names is never dialled.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable
from functools import lru_cache
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocispec.errors import RegistryError, Unavailable
from registry.mirror.asked import Asked, asking
from registry.mirror.upstreams import Upstreams

_log = logging.getLogger("registry")
# Greedy, as the routes are.
_PLACES = r"blobs/uploads(?:/[^/]*)?|(?:manifests|blobs|referrers)/[^/]+|tags/list"
_REPOSITORY = re.compile(rf"/v2/(.*)(/(?:{_PLACES}))", re.DOTALL)
# RFC 9111 has dropped it, and nothing else tells a client so.
_STALE = (b"warning", b'110 - "Response is Stale"')
_MOST_VIA, _MOST_HOPS = 4096, 16
_HOP = re.compile(r"[!#$%&'*+.^_`|~\w:-]{1,128}", re.ASCII)
_TOLD_EVERY = 60.0
# Paths that are remembered; no name makes a longer one.
_PATHS, _LONGEST = 16_384, 512


class AddressedRequests:
    """Leads requests to the names that repositories have here; plain ASGI, before the gate.

    A request that this instance itself made, on whatever way it came back, is refused: see RFC 9110, section 7.6.3.

    Args:
        app: the rest.
        instance: the name by which this instance enters itself in `Via`.
        upstreams: None where all names are one registry's (`proxy`).
    """

    def __init__(self, app: ASGIApp, instance: str, upstreams: Upstreams | None = None) -> None:
        self._app = app
        self._instance = instance
        self._upstreams = upstreams
        # Looked up in a tenth of the time that finding it out takes, which every request would pay.
        self._led = lru_cache(_PATHS)(self._place)
        self._told = -_TOLD_EVERY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        namespace = _namespace(scope) if self._upstreams else ""
        with asking(_via(scope)) as asked:
            try:
                self._lead(scope, namespace, asked)
                await self._app(scope, receive, _Answer(send, asked, namespace).send)
            except RegistryError as error:
                if namespace and self._upstreams and self._upstreams.is_named(namespace):
                    error.headers["OCI-Namespace"] = namespace
                raise

    def _lead(self, scope: Scope, namespace: str, asked: Asked) -> None:
        path = scope["path"]
        place = self._led if len(path) <= _LONGEST else self._place
        scope["path"], is_mirrored = place(path, namespace)
        if is_mirrored and asked.via and self._instance in asked.via:
            raise self._looped(scope)

    def _place(self, path: str, namespace: str) -> tuple[str, bool]:
        """The path by the name that a repository has here, and whether it is mirrored."""
        match = _REPOSITORY.fullmatch(path)
        if self._upstreams and match:
            name = self._upstreams.canonical(match[1], namespace)
            return f"/v2/{name}{match[2]}", self._upstreams.of(name) is not None
        if self._upstreams and namespace:
            self._upstreams.named(namespace)
        return path, match is not None

    def _looped(self, scope: Scope) -> Unavailable:
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY:
            self._told = now
            _log.error("%s leads back to this registry: an upstream of its mirror is this registry", scope["path"])
        return Unavailable("the upstream of this mirror leads back to it")


class _Answer:
    """Adds to an answer what the mirror has to tell of it."""

    __slots__ = ("_asked", "_namespace", "_send")

    def __init__(self, send: Send, asked: Asked, namespace: str) -> None:
        self._send = send
        self._asked = asked
        self._namespace = namespace

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            if self._asked.is_stale:
                message["headers"].append(_STALE)
            if self._namespace:
                message["headers"].append((b"oci-namespace", self._namespace.encode("latin-1")))
        return self._send(message)


def _namespace(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("ns", [""])[-1] if b"ns=" in query else ""


def _via(scope: Scope) -> tuple[str, ...]:
    """The names of those who handed a request on: each element is a protocol and a name (RFC 9110, section 7.6.3)."""
    lines = [value for name, value in scope["headers"] if name == b"via"]
    if not lines:
        return ()
    elements = b",".join(lines)[-_MOST_VIA:].decode("latin-1").split(",")
    names = (words[1] for each in elements if len(words := each.split()) > 1)
    return tuple(name for name in names if _HOP.fullmatch(name))[-_MOST_HOPS:]
