"""What a request wants, told from its method and path alone, before anything is looked up.

The table is complete: what it does not know is refused, and `tests/registry/auth/test_matrix.py` holds it to the
routes that there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

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
# A repository may be called team/tags: `registry/api/management.py` says which address is which.
_CARE = "/_layerhouse/v1"
_CARED_FOR = re.compile(rf"{_CARE}/repositories/(?P<name>.*?)(?:/tags|/)?", re.DOTALL)
_DELETED = re.compile(rf"{_CARE}/repositories/(?P<name>.*)", re.DOTALL)
_CARE_BY_METHOD = {
    "GET": (_CARED_FOR, Action.PULL),
    "HEAD": (_CARED_FOR, Action.PULL),
    "DELETE": (_DELETED, Action.DELETE),
}
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

_READ = frozenset({"GET", "HEAD"})
_FIXED = {
    "/v2/": SOMEBODY,
    "/v2": SOMEBODY,
    "/v2/_catalog": LISTED,
    f"{_CARE}/version": SOMEBODY,
    f"{_CARE}/repositories": LISTED,
    "/_layerhouse/docs": SOMEBODY,
    "/_layerhouse/openapi.json": SOMEBODY,
}
OPEN = frozenset({"/"})
"""Paths that anybody may ask for, or where it is found out who asks."""
_SHORT = 512


def wanted(method: str, path: str) -> Wanted | None:
    """Returns what a request needs; None where it needs nothing.

    Raises:
        NameInvalid: the repository's name is none.
        Denied: the table does not know the address, or this method there.
    """
    return _remembered(method, path) if len(path) <= _SHORT else _wanted(method, path)


def _wanted(method: str, path: str) -> Wanted | None:
    action = _BY_METHOD.get(method)
    match = _REPOSITORY.fullmatch(path)
    if match and action:
        if match["upload"] and action is Action.DELETE:
            # Whoever may push may give up what is not pushed yet.
            action = Action.PUSH
        return Wanted(action, RepositoryName.parse(match["name"]))
    if path in OPEN:
        return None
    if path in _FIXED and method in _READ:
        return _FIXED[path]
    pattern, action = _CARE_BY_METHOD.get(method, (_DELETED, None))
    if action and (match := pattern.fullmatch(path)):
        return Wanted(action, RepositoryName.parse(match["name"]))
    raise Denied(f"{method} is not allowed at this address")


# The same few paths are asked for again and again; what is long is none of them, and would fill the memory.
_remembered = lru_cache(4096)(_wanted)
