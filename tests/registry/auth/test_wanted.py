"""What a request wants: told from its address alone, and never of another repository than the one that is used."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Match

from ocispec.errors import Denied, NameInvalid
from ocispec.headers import Scope
from ocispec.reference import RepositoryName
from registry.api import lists, management, manifests, openapi, pull, uploads
from registry.auth.caller import Action
from registry.auth.wanted import LISTED, SOMEBODY, Wanted, wanted

NAME = RepositoryName.parse("team/app")
DIGEST = "sha256:" + "0" * 64
ROUTERS = (lists, uploads, manifests, management, openapi)
ROUTES = [route for each in ROUTERS for route in each.router.routes if isinstance(route, APIRoute)]


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "manifests/latest", Action.PULL),
        ("HEAD", f"manifests/{DIGEST}", Action.PULL),
        ("PUT", "manifests/latest", Action.PUSH),
        ("DELETE", "manifests/latest", Action.DELETE),
        ("GET", f"blobs/{DIGEST}", Action.PULL),
        ("DELETE", f"blobs/{DIGEST}", Action.DELETE),
        ("POST", "blobs/uploads", Action.PUSH),
        ("POST", "blobs/uploads/", Action.PUSH),
        ("GET", "blobs/uploads/0", Action.PULL),
        ("PATCH", "blobs/uploads/0", Action.PUSH),
        ("PUT", "blobs/uploads/0", Action.PUSH),
        ("DELETE", "blobs/uploads/0", Action.PUSH),
        ("GET", "tags/list", Action.PULL),
        ("HEAD", "tags/list", Action.PULL),
        ("GET", f"referrers/{DIGEST}", Action.PULL),
    ],
)
def test_each_method_has_its_action(method: str, path: str, action: Action) -> None:
    assert wanted(method, f"/v2/team/app/{path}") == Wanted(action, NAME)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/", SOMEBODY),
        ("/v2", SOMEBODY),
        ("/v2/_catalog", LISTED),
        ("/", None),
        ("/_layerhouse/v1/repositories", LISTED),
        ("/_layerhouse/v1/version", SOMEBODY),
    ],
)
def test_what_concerns_no_repository(path: str, expected: Wanted | None) -> None:
    assert wanted("GET", path) == wanted("HEAD", path) == expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "team/app", Wanted(Action.PULL, NAME)),
        ("HEAD", "team/app/", Wanted(Action.PULL, NAME)),
        ("GET", "team/app/tags", Wanted(Action.PULL, NAME)),
        ("GET", "team/app/tags/tags", Wanted(Action.PULL, RepositoryName("team/app/tags"))),
        ("GET", "team/app/tags/", Wanted(Action.PULL, RepositoryName("team/app/tags"))),
        ("DELETE", "team/app", Wanted(Action.DELETE, NAME)),
        ("DELETE", "team/app/tags", Wanted(Action.DELETE, RepositoryName("team/app/tags"))),
    ],
)
def test_care_of_repositories(method: str, path: str, expected: Wanted) -> None:
    assert wanted(method, f"/_layerhouse/v1/repositories/{path}") == expected


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/"),
        ("PUT", "/v2/_catalog"),
        ("OPTIONS", "/v2/team/app/manifests/latest"),
        ("GET", "/v2/team/app"),
        ("GET", "/v2/team/app/tags"),
        ("GET", "/v2//manifests/"),
        ("GET", "/v2/team/app/blobs/uploads/a/b"),
        ("GET", "/v1/_ping"),
        ("GET", "/_layerhouse/unheard-of"),
        ("GET", ""),
    ],
)
def test_what_the_table_does_not_know_is_refused(method: str, path: str) -> None:
    with pytest.raises(Denied):
        wanted(method, path)


@pytest.mark.parametrize("name", ["UPPER", "..", "a//b", "team/app/", "a b", "a\nb", "é"])
def test_a_name_that_is_none_is_refused_as_the_handlers_do(name: str) -> None:
    with pytest.raises(NameInvalid):
        wanted("GET", f"/v2/{name}/manifests/latest")


def test_what_a_token_would_have_to_cover() -> None:
    told = [str(scope) for scope in Wanted(Action.PUSH, NAME).scopes(RepositoryName.parse("base"))]
    assert told == ["repository:team/app:pull,push", "repository:base:pull"]
    assert Wanted(Action.DELETE, NAME).scopes() == (Scope("repository", "team/app", ("delete",)),)
    assert [str(scope) for scope in LISTED.scopes()] == ["registry:catalog:*"]
    assert [str(scope) for scope in Wanted(Action.ADMIN).scopes()] == ["registry:admin:*"]
    assert SOMEBODY.scopes() == ()


WORDS = "a b1 v2 repositories blobs uploads manifests tags list referrers _catalog latest"
SEGMENTS = st.sampled_from(["", DIGEST, *WORDS.split()])


@given(st.lists(SEGMENTS, min_size=1, max_size=8), st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]))
def test_the_repository_that_is_asked_about_is_the_one_that_a_handler_would_use(parts: list[str], method: str) -> None:
    path = "/v2/" + "/".join(parts)
    used = repository_of(method, path)
    if used is None:
        return
    try:
        found = wanted(method, path)
    except NameInvalid:
        with pytest.raises(NameInvalid):
            RepositoryName.parse(used)
    else:
        assert found is not None
        assert found.repository == used


def repository_of(method: str, path: str) -> str | None:
    """The name that the application cuts out of a path; None where it answers without one."""
    if method in pull.METHODS and (match := pull.PATH.fullmatch(path)):
        return match[1]
    for route in ROUTES:
        matched, child = route.matches({"type": "http", "method": method, "path": path})
        if matched is Match.FULL:
            name = child["path_params"].get("name")
            return None if name is None else str(name)
    return None
