"""Configuration: Distribution's `config.yml`, its `REGISTRY_*` variables, and defaults that need neither."""

from registry.config.settings import Settings
from registry.config.sources import DEFAULT_ROOT, Configuration, Remark, load, read
from registry.config.values import ConfigError

__all__ = ["DEFAULT_ROOT", "ConfigError", "Configuration", "Remark", "Settings", "load", "read"]
