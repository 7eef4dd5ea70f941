"""Which mirrored registry a repository's name is about, and what it is called there: told from names alone.

Each repository has one name here, `<registry>/<name there>`. Under it it lies in the tree, is listed, decided on by
access rules and told of in events, however clients ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ocispec.errors import NameUnknown
from ocispec.reference import RepositoryName
from registry.auth.rules import matching
from registry.config.mirror import DOCKER_HUB, Mirror

_NAMES = 16_384


@dataclass(frozen=True, slots=True)
class Place:
    """A mirrored repository.

    Attributes:
        upstream: the registry's name here.
        there: the repository's name there.
    """

    upstream: str
    there: RepositoryName


class Upstreams:
    """The mirrored registries, as the configuration names them."""

    def __init__(self, settings: Mirror) -> None:
        self._allowed = {each.name: matching(each.allow) for each in settings.upstreams}
        self._refused = {each.name: matching(each.refuse) for each in settings.upstreams if each.refuse}
        self._called = {text.lower(): each.name for each in settings.upstreams for text in (each.name, *each.aliases)}
        self._default = settings.default
        self._hosted = matching(settings.hosted) if settings.hosted else _nothing
        self._known = lru_cache(_NAMES)(self._canonical)
        self._placed = lru_cache(_NAMES)(self._place)

    def canonical(self, name: str, namespace: str = "") -> RepositoryName:
        """Returns the one name that a repository has here.

        Args:
            name: as it was asked for.
            namespace: `ns`: which registry has it; empty where nothing was said.

        Raises:
            NameUnknown: that registry is not mirrored, or that repository of it is not.
            NameInvalid: it is no name, or too long below the registry's.
        """
        return self._known(name, namespace)

    def of(self, name: RepositoryName) -> Place | None:
        """Returns where a repository is mirrored from, by its name here; None for one that is hosted here."""
        return self._placed(name)

    def is_named(self, namespace: str) -> bool:
        """Whether `ns` means one of them."""
        return namespace.lower() in self._called

    def named(self, namespace: str) -> str:
        """Returns the name of the registry that is meant by `ns`; raises NameUnknown where none is."""
        found = self._called.get(namespace.lower())
        if found is None:
            raise NameUnknown("the registry that ns names is not mirrored here", detail={"ns": namespace[:255]})
        return found

    def _canonical(self, name: str, namespace: str) -> RepositoryName:
        if namespace:
            return self._below(self.named(namespace), RepositoryName.parse(name))
        first, _, rest = name.partition("/")
        if first in self._allowed:
            if not rest:
                raise _unknown(name)
            return self._below(first, RepositoryName.parse(rest))
        parsed = RepositoryName.parse(name)
        if self._default is None or self._hosted(parsed):
            return parsed
        return self._below(self._default, parsed)

    def _below(self, upstream: str, there: RepositoryName) -> RepositoryName:
        if upstream == DOCKER_HUB and "/" not in there:
            there = RepositoryName.parse(f"library/{there}")
        if not self._allowed[upstream](there) or (upstream in self._refused and self._refused[upstream](there)):
            raise _unknown(there)
        return RepositoryName.parse(f"{upstream}/{there}")

    def _place(self, name: RepositoryName) -> Place | None:
        first, _, rest = name.partition("/")
        return Place(first, RepositoryName.parse(rest)) if first in self._allowed and rest else None


def _nothing(_name: str) -> None:
    """No pattern, no match."""


def _unknown(name: str) -> NameUnknown:
    return NameUnknown(detail={"name": name})
