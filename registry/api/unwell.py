"""What is answered while a health check fails: 503, as Distribution does."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ocispec.errors import Unavailable
from registry.observing.health import Health


class UnwellRequests:
    """Hands requests on while all is well."""

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._health.failing and scope["type"] == "http":
            raise Unavailable(detail="health check failed: please see /debug/health")
        await self._app(scope, receive, send)
