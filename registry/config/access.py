"""`layerhouse.access`: who may do what."""

from __future__ import annotations

from registry.config.values import Section


class Access(Section):
    """Rules of access."""
