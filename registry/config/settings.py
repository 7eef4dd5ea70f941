"""The configuration in force: Distribution's sections, and ours under `layerhouse`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from registry.config.authentication import Authentication
from registry.config.health import Health
from registry.config.http import Http
from registry.config.layerhouse import Layerhouse
from registry.config.log import Log
from registry.config.notifications import Notifications
from registry.config.proxy import Proxy
from registry.config.storage import Storage
from registry.config.validation import Catalog, Policy, TagList, Validation
from registry.config.values import ConfigError, Section, Unserved, lower

_HANDED_ON = "LAYERHOUSE_SETTINGS"
_MOST_BYTES = 131_000  # Linux takes 128 KiB of one variable, with its name (execve(2), MAX_ARG_STRLEN)


class Settings(Section):
    """The configuration in force."""

    version: Annotated[Literal["0.1"], BeforeValidator(str)] = Field(
        default="0.1", description="The version of the file's format; a file has to give it."
    )
    log: Log = Log()
    loglevel: Annotated[Literal["error", "warn", "info", "debug"] | None, BeforeValidator(lower)] = Field(
        default=None, description="The old name of `log.level`, which stands above it."
    )
    storage: Storage = Storage()
    auth: Authentication = Authentication()
    middleware: Annotated[dict[str, Any], Unserved("nothing stands between the registry and its storage")] = Field(
        default={}, description="Distribution's plug-ins for storage, repositories and the registry, like CloudFront."
    )
    reporting: Annotated[dict[str, Any], Unserved("nothing is reported to outside services")] = Field(
        default={}, description="Bugsnag and New Relic, in version 2 of Distribution."
    )
    http: Http = Http()
    notifications: Notifications = Notifications()
    redis: Annotated[dict[str, Any], Unserved("nothing is cached outside of this process")] = Field(
        default={}, description="A server of Redis for `storage.cache`."
    )
    health: Health = Health()
    proxy: Proxy = Proxy()
    validation: Validation = Validation()
    compatibility: Annotated[dict[str, Any], Unserved("manifests of schema 1 are not accepted")] = Field(
        default={}, description="Manifests of schema 1, in version 2 of Distribution."
    )
    catalog: Catalog = Catalog()
    tags: TagList = TagList()
    policy: Policy = Policy()
    layerhouse: Layerhouse = Layerhouse()

    @model_validator(mode="after")
    def _mirrors_in_one_way(self) -> Settings:
        if self.proxy.remoteurl and self.layerhouse.mirror.upstreams:
            raise ValueError("expected either proxy, which mirrors one registry, or layerhouse.mirror, not both")
        return self

    @property
    def state_directory(self) -> Path:
        """Where queues, tokens and the like are kept; the images' root holds none of them elsewhere."""
        return self.layerhouse.statedirectory or self.storage.filesystem.rootdirectory / ".layerhouse"

    def to_environment(self) -> None:
        """Leaves the configuration to the worker processes that this one starts.

        Secrets are in it. A process's environment is read by its own user and root alone (proc(5), `environ`), who
        may read the file too; its command line would be for everybody.

        Raises:
            ConfigError: several workers are wanted, and it is longer than what a process may be given.
        """
        text = self.model_dump_json()
        if self.layerhouse.workers > 1 and len(text.encode()) > _MOST_BYTES:
            raise ConfigError(f"the configuration is longer than {_MOST_BYTES} bytes, expected one, or one worker")
        os.environ[_HANDED_ON] = text

    @classmethod
    def from_environment(cls) -> Settings:
        """Takes over what `to_environment` left, and away, so that no child of a worker has it; else the defaults."""
        return cls.model_validate_json(os.environ.pop(_HANDED_ON, "{}"))
