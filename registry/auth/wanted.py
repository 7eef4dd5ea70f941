"""What a request wants, told from its method and path alone, before anything is looked up.

The table is complete: what it does not know is refused, and `tests/registry/auth/test_matrix.py` holds it to the
routes that there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocispec.errors import Denied
from ocispec.headers import Scope
from ocispec.reference import RepositoryName
from registry.auth.caller import Action

CATALOG = Scope("registry", "catalog", ("*",))
ADMINISTRATION = Scope("registry", "admin", ("*",))

# Greedy, as the routes are: of a path that could be cut in two ways, both take the longer name.
_PLACES = r"(?:manifests|blobs|referrers)/[^/]+|tags/list"
_UPLOADS = r"blobs/uploads(?:/[^/]*)?"
_REPOSITORY = re.compile(rf"/v2/(?P<name>.*)/(?:(?P<upload>{_UPLOADS})|{_PLACES})", re.DOTALL)
_MANAGED = re.compile(r"/_layerhouse/v1/repositories/(?P<name>.*)", re.DOTALL)
_BY_METHOD = {
    "GET": Action.PULL,
    "HEAD": Action.PULL,
    "POST": Action.PUSH,
    "PUT": Action.PUSH,
    "PATCH": Action.PUSH,
    "DELETE": Action.DELETE,
}
_SCOPES = {
    Action.PULL: ("pull",),
    Action.PUSH: ("pull", "push"),
    Action.DELETE: ("delete",),
    Action.ADMIN: ("*",),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request needs.

    Attributes:
        action: None where it is enough to be somebody.
        repository: None for what concerns all: `pull` is then the catalogue, `admin` the registry.
    """

    action: Action | None = None
    repository: RepositoryName | None = None

    def scopes(self, source: RepositoryName | None = None) -> tuple[Scope, ...]:
        """Returns what a token would have to cover (Docker's token specification).

        Args:
            source: the repository that a blob is to be mounted from.
        """
        if self.action is None:
            return ()
        if self.repository is None:
            return (CATALOG if self.action is Action.PULL else ADMINISTRATION,)
        scopes = [Scope("repository", self.repository, _SCOPES[self.action])]
        if source is not None:
            scopes.append(Scope("repository", source, _SCOPES[Action.PULL]))
        return tuple(scopes)


SOMEBODY = Wanted()
LISTED = Wanted(Action.PULL)
ADMINISTERED = Wanted(Action.ADMIN)

_FIXED = {
    "/v2/": {"GET": SOMEBODY, "HEAD": SOMEBODY},
    "/v2": {"GET": SOMEBODY, "HEAD": SOMEBODY},
    "/v2/_catalog": {"GET": LISTED, "HEAD": LISTED},
    "/_layerhouse/v1/repositories": {"GET": LISTED, "HEAD": LISTED},
    "/_layerhouse/v1/version": {"GET": SOMEBODY, "HEAD": SOMEBODY},
    "/_layerhouse/openapi.json": {"GET": SOMEBODY, "HEAD": SOMEBODY},
    "/_layerhouse/docs": {"GET": SOMEBODY, "HEAD": SOMEBODY},
}
OPEN = frozenset({"/"})
"""Paths that anybody may ask for, or where it is found out who asks."""


def wanted(method: str, path: str) -> Wanted | None:
    """Returns what a request needs; None where it needs nothing.

    Raises:
        NameInvalid: the repository's name is none.
        Denied: the table does not know the address, or this method there.
    """
    action = _BY_METHOD.get(method)
    match = _REPOSITORY.fullmatch(path)
    if match and action:
        if match["upload"] and action is Action.DELETE:
            # Whoever may push may give up what is not pushed yet.
            action = Action.PUSH
        return Wanted(action, RepositoryName.parse(match["name"]))
    if (match := _MANAGED.fullmatch(path)) and action:
        return Wanted(action, RepositoryName.parse(_managed(match["name"], action)))
    if path in OPEN:
        return None
    if found := _FIXED.get(path, {}).get(method):
        return found
    raise Denied(f"{method} is not allowed at this address")


def _managed(name: str, action: Action) -> str:
    """Returns the name as the routes cut it out: those that read know a list of tags, and a name with a slash."""
    if action is not Action.PULL:
        return name
    return name.removesuffix("/tags") if name.endswith("/tags") else name.removesuffix("/")
