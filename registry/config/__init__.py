"""Configuration: Distribution's `config.yml`, its `REGISTRY_*` variables, and defaults that need neither."""

from registry.config.settings import Settings
from registry.config.sources import DEFAULT_ROOT, load
from registry.config.values import ConfigError

__all__ = ["DEFAULT_ROOT", "ConfigError", "Settings", "load"]
