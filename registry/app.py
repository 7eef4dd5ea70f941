"""The application: the only place that knows every room of the registry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from registry import acceptance, engines, exclusion
from registry.api import errors, lists, management, manifests, openapi, uploads
from registry.api.addressing import AddressedRequests
from registry.api.forwarded import ForwardedRequests
from registry.api.guard import guard
from registry.api.prefix import CompletedAnswers, PrefixedRequests
from registry.api.pull import PullEndpoints
from registry.api.requests import RequestMiddleware
from registry.api.unwell import UnwellRequests
from registry.api.urls import Urls
from registry.auth.composition import guarded
from registry.config import Settings
from registry.events import Events, Listener
from registry.mirror import checking
from registry.notifications.families import families
from registry.notifications.notifying import Notifications
from registry.observing import logs
from registry.observing.audit import Audit, AuditedRequests, hiding
from registry.observing.composition import observe
from registry.purging import purge
from registry.serving.limits import LimitedRequests
from storage.engine import Engine
from storage.memory import MemoryEngine
from storage.store import Store

if TYPE_CHECKING:
    from registry.mirror.mirror import Mirror

Work = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger("registry")
_AFTER_A_FAULT = 10.0
_Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(settings: Settings, engine: Engine) -> ASGIApp:
    """Returns the ASGI application over an engine: log and faults, then the gate, pulls, and everything else.

    Every path ends in the same envelope of errors.
    """
    seen = observe(settings, engine)
    mirror = _mirror(settings, seen.engine)
    store, background = _store(settings, seen.engine, mirror)
    notifications = Notifications(settings)
    if notifications.wanted:
        seen.sources.append(partial(families, notifications))
    told: list[Listener] = [notifications] if notifications.wanted else []
    audit = Audit(settings.layerhouse.audit) if settings.layerhouse.audit.file is not None else None
    if audit is not None:
        told.append(audit)
    events = Events(*told, address=Urls.of(settings.http).absolute)
    background += [notifications.run, seen.health.run, seen.reporter.run]
    background.append(partial(purge, store, settings))
    app = _endpoints(settings, store, events, _lifespan(engine, background))
    absent = partial(_endpoints, settings, Store(MemoryEngine()), Events())
    served = guarded(app, lambda: hiding(absent()), settings, background)
    if audit is not None:
        served = AuditedRequests(served, audit)
    if mirror is not None:
        seen.sources.append(mirror.families)
        served = AddressedRequests(served, mirror.instance, mirror.upstreams)
    if settings.http.prefix != "/":
        served = PrefixedRequests(served, settings.http.prefix)
    if seen.health.watched:
        served = UnwellRequests(served, seen.health)
    if settings.layerhouse.limits.perclient:
        served = LimitedRequests(served, settings.layerhouse.limits.perclient)
    return _reached(RequestMiddleware(served, logs.AccessLog(settings.log), seen.requests), settings)


def _mirror(settings: Settings, engine: Engine) -> Mirror | None:
    if not checking.is_mirror(settings):
        return None
    from registry.mirror.mirror import Mirror  # noqa: PLC0415 - the client is not needed to host

    return Mirror(settings, engine)


def _store(settings: Settings, engine: Engine, mirror: Mirror | None) -> tuple[Store, list[Work]]:
    """Returns the store, and what works beside it: a mirror's repositories have what its upstream has."""
    sparse, rules = settings.layerhouse.sparseimages, acceptance.rules(settings)
    if mirror is None:
        return Store(engine, sparse_images=sparse, rules=rules), []
    return Store(engine, sparse_images=sparse, rules=rules, dressed=mirror.dressed), [mirror.run]


def _reached(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Adds what stands between the registry and its clients, where there is any: headers, proxies that are trusted."""
    if settings.http.headers:
        app = CompletedAnswers(app, settings.http.headers)
    if settings.layerhouse.trustedproxies:
        app = ForwardedRequests(app, settings.layerhouse.trustedproxies)
    return app


def _endpoints(settings: Settings, store: Store, events: Events, lifespan: _Lifespan | None = None) -> ASGIApp:
    """Returns what answers the requests for a store."""
    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan, dependencies=[Depends(guard)])
    app.state.settings, app.state.store, app.state.events = settings, store, events
    app.state.urls = Urls.of(settings.http)
    routers = [each.router for each in (lists, uploads, manifests, management, openapi)]
    for each in routers:
        app.include_router(each)
    errors.add_handlers(app, routers)
    return PullEndpoints(app, store, events)


def worker() -> ASGIApp:
    """Returns the application of one worker process, as its environment describes it."""
    settings = Settings.from_environment()
    exclusion.share(settings)
    logs.configure(settings.log)
    return create_app(settings, engines.engine(settings))


async def _lasting(work: Work) -> None:
    """Runs work until it ends; a fault of ours is told and begun anew, and takes no other work along."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - the last place that can tell of it
            _log.exception("a fault in the background: it begins anew in %.0f s", _AFTER_A_FAULT)
            await asyncio.sleep(_AFTER_A_FAULT)
        else:
            return


def _lifespan(engine: Engine, background: Sequence[Work]) -> _Lifespan:
    """Runs `background` beside the requests: each until it ends by itself, or the last request has been answered."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_lasting(each)) for each in background]
            yield
            for each in running:
                each.cancel()

    return lifespan
