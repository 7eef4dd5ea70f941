"""Somebody who asks: htpasswd files, headers with credentials, configurations with rules."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bcrypt

from registry.config import Settings


def htpasswd(path: Path, **passwords: str) -> Path:
    """Writes a file of these users; their hashes are as cheap as bcrypt has them."""
    path.write_text("".join(f"{user}:{cheap_hash(password)}\n" for user, password in passwords.items()))
    return path


def cheap_hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def settings(
    passwords: Path | None = None, access: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
) -> Settings:
    """A configuration with deletes allowed, an htpasswd file if any, and what stands below `layerhouse.access`."""
    auth = {"htpasswd": {"realm": "The Shire", "path": str(passwords)}} if passwords else {}
    return Settings.model_validate(
        {"storage": {"delete": {"enabled": True}}, "auth": auth, "layerhouse": {"access": access or {}}, **sections}
    )
