"""The configuration in force: Distribution's sections, and ours under `layerhouse`."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, IPvAnyNetwork

from registry.config.access import Access
from registry.config.authentication import Authentication
from registry.config.http import Http
from registry.config.storage import Storage
from registry.config.values import Duration, Interval, Secret, Section, Unserved, lower

_HANDED_ON = "LAYERHOUSE_SETTINGS"


class AccessLog(Section):
    disabled: bool = False


class Log(Section):
    level: Annotated[Literal["error", "warn", "info", "debug"], BeforeValidator(lower)] = "info"
    formatter: Literal["text", "json", "logstash"] = "text"
    fields: dict[str, Any] = Field(default={})
    accesslog: AccessLog = AccessLog()
    hooks: Annotated[tuple[Any, ...], Unserved("no mail is sent: collect the log where it goes")] = ()
    reportcaller: Annotated[bool, Unserved("lines do not tell which code wrote them")] = False


class Ignore(Section):
    mediatypes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


class Endpoint(Section):
    """Somebody who is told of what happens."""

    name: str
    url: str
    disabled: bool = False
    headers: dict[str, tuple[Secret, ...]] = Field(default={})
    timeout: Interval = timedelta(seconds=1)
    threshold: Annotated[int, Field(gt=0)] = 10
    backoff: Duration = timedelta(seconds=1)
    ignoredmediatypes: tuple[str, ...] = ()
    ignore: Ignore = Ignore()


class EventContent(Section):
    includereferences: bool = False


class Notifications(Section):
    endpoints: tuple[Endpoint, ...] = ()
    events: EventContent = EventContent()


class Proxy(Section):
    """A registry that is mirrored."""

    remoteurl: str | None = None
    username: str | None = None
    password: Secret | None = None
    ttl: Duration = timedelta(hours=168)


class StorageDriverHealth(Section):
    enabled: bool = False
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 3


class FileHealth(Section):
    """Unhealthy while the file is there."""

    file: Path
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class HttpHealth(Section):
    uri: str
    headers: dict[str, tuple[Secret, ...]] = Field(default={})
    statuscode: int = 200
    timeout: Duration = timedelta(0)
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class TcpHealth(Section):
    addr: str
    timeout: Duration = timedelta(0)
    interval: Interval = timedelta(seconds=10)
    threshold: Annotated[int, Field(ge=0)] = 0


class Health(Section):
    storagedriver: StorageDriverHealth = StorageDriverHealth()
    file: tuple[FileHealth, ...] = ()
    http: tuple[HttpHealth, ...] = ()
    tcp: tuple[TcpHealth, ...] = ()


class Urls(Section):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class ListedPlatform(Section):
    architecture: str
    os: str


class Indexes(Section):
    platforms: Annotated[Literal["all", "none", "list"], BeforeValidator(lower)] | None = None
    platformlist: tuple[ListedPlatform, ...] = ()


class ManifestValidation(Section):
    urls: Urls = Urls()
    indexes: Indexes = Indexes()


class Validation(Section):
    enabled: bool | None = None
    disabled: bool = False
    manifests: ManifestValidation = ManifestValidation()


class Catalog(Section):
    maxentries: Annotated[int, Field(gt=0)] = 1000


class TagList(Section):
    maxtags: Annotated[int, Field(gt=0)] = 1000


class RepositoryPolicy(Section):
    classes: tuple[str, ...] = ()


class Policy(Section):
    repository: RepositoryPolicy = RepositoryPolicy()


class NotificationQueue(Section):
    """How many events an endpoint may lag behind before the oldest are dropped."""

    limit: Annotated[int, Field(gt=0)] = 100_000


class GarbageCollect(Section):
    """How long something has to lie unused before it is collected."""

    graceperiod: Duration = timedelta(hours=1)


class Layerhouse(Section):
    """What Distribution does not know.

    Attributes:
        workers: how many processes serve.
        sparseimages: whether an image is accepted before, or without, its blobs.
        statedirectory: what is kept beside the images; `.layerhouse` in the root directory where nothing is said.
        trustedproxies: networks whose `X-Forwarded-*` and `Forwarded` headers count.
        access: who may do what.
    """

    sparseimages: bool = False
    workers: Annotated[int, Field(gt=0, le=64)] = 1
    statedirectory: Path | None = None
    trustedproxies: tuple[IPvAnyNetwork, ...] = ()
    notifications: NotificationQueue = NotificationQueue()
    garbagecollect: GarbageCollect = GarbageCollect()
    access: Access = Access()


class Settings(Section):
    """The configuration in force."""

    version: Annotated[Literal["0.1"], BeforeValidator(str)] = "0.1"
    log: Log = Log()
    loglevel: Annotated[Literal["error", "warn", "info", "debug"] | None, BeforeValidator(lower)] = None
    storage: Storage = Storage()
    auth: Authentication = Authentication()
    middleware: Annotated[dict[str, Any], Unserved("nothing stands between the registry and its storage")] = Field(
        default={}
    )
    reporting: Annotated[dict[str, Any], Unserved("nothing is reported to outside services")] = Field(default={})
    http: Http = Http()
    notifications: Notifications = Notifications()
    redis: Annotated[dict[str, Any], Unserved("nothing is cached outside of this process")] = Field(default={})
    health: Health = Health()
    proxy: Proxy = Proxy()
    validation: Validation = Validation()
    compatibility: Annotated[dict[str, Any], Unserved("manifests of schema 1 are not accepted")] = Field(default={})
    catalog: Catalog = Catalog()
    tags: TagList = TagList()
    policy: Policy = Policy()
    layerhouse: Layerhouse = Layerhouse()

    @property
    def state_directory(self) -> Path:
        """Where queues, tokens and the like are kept; the images' root holds none of them elsewhere."""
        return self.layerhouse.statedirectory or self.storage.filesystem.rootdirectory / ".layerhouse"

    def to_environment(self) -> None:
        """Leaves the configuration to the worker processes that this one starts."""
        os.environ[_HANDED_ON] = self.model_dump_json()

    @classmethod
    def from_environment(cls) -> Settings:
        """Takes over what `to_environment` left; defaults where there is nothing."""
        return cls.model_validate_json(os.environ.get(_HANDED_ON, "{}"))
