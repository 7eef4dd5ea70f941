"""Access rules: which repositories a pattern names, which rule decides, and what is wrong with a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ocispec.reference import RepositoryName
from registry.auth.authenticator import ANONYMOUS, Identity, Kind
from registry.auth.caller import Action
from registry.auth.policy import ByRules, KnownMayAll, Somebody
from registry.auth.rules import CompiledRules, from_file, inline_places
from registry.config import ConfigError
from registry.config.access import Access, Rules

ALICE = Identity("alice", Kind.USER)
CI = Identity("ci", Kind.ROBOT)
HOST = Identity("host1", Kind.CERTIFICATE)


def compiled(*rules: dict[str, Any], **groups: Any) -> CompiledRules:
    given = Rules.model_validate({"rules": rules, "groups": groups})
    return CompiledRules(given, inline_places(given))


def allows(rules: CompiledRules, who: Identity, action: str, name: str) -> bool:
    return rules.decide(who, Action(action), RepositoryName.parse(name)).is_allowed


PARTS = st.sampled_from(["a", "b", "ab", "a-b", "a.b"])
PATTERN_PARTS = st.sampled_from(["*", "**", "a", "a*", "*b", "a*b", "ab"])


@given(st.lists(PATTERN_PARTS, min_size=1, max_size=4), st.lists(PARTS, min_size=1, max_size=4))
def test_a_pattern_names_what_it_names_part_by_part(pattern: list[str], name: list[str]) -> None:
    rules = compiled({"who": "anyone", "allow": "pull", "repositories": "/".join(pattern)})
    assert allows(rules, ANONYMOUS, "pull", "/".join(name)) is names(pattern, name)


def names(pattern: list[str], name: list[str]) -> bool:
    """The definition: `**` is any number of parts, at the end at least one; `*` any characters of one part."""
    if not pattern or not name:
        return not pattern and not name
    first, *rest = pattern
    if first == "**":
        least = 0 if rest else 1
        return any(names(rest, name[taken:]) for taken in range(least, len(name) + 1))
    head, star, tail = first.partition("*")
    fits = name[0].startswith(head) and name[0].endswith(tail) and len(name[0]) >= len(head + tail)
    return (fits if star else name[0] == first) and names(rest, name[1:])


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("team-a/**", "team-a/app", "team-a"),
        ("team-a/**", "team-a/x/y/z", "team-ab/app"),
        ("*", "app", "team/app"),
        ("**", "a/b/c", None),
        ("**/base", "base", "base/x"),
        ("**/base", "team/x/base", "team/database"),
        ("team/*/app", "team/x/app", "team/x/y/app"),
        ("team.a/app", "team.a/app", "team-a/app"),
    ],
)
def test_patterns_as_the_documentation_has_them(pattern: str, inside: str, outside: str | None) -> None:
    rules = compiled({"who": "anyone", "allow": "pull", "repositories": pattern})
    assert allows(rules, ALICE, "pull", inside)
    assert outside is None or not allows(rules, ALICE, "pull", outside)


def test_the_first_rule_that_fits_decides() -> None:
    rules = compiled(
        {"who": "user:alice", "deny": ["push", "delete"], "repositories": "releases/**"},
        {"who": "authenticated", "allow": ["pull", "push", "delete"]},
    )
    assert not allows(rules, ALICE, "push", "releases/app")
    assert allows(rules, ALICE, "pull", "releases/app")
    assert allows(rules, ALICE, "push", "other/app")
    assert allows(rules, CI, "push", "releases/app")
    turned = compiled(
        {"who": "authenticated", "allow": ["pull", "push", "delete"]},
        {"who": "user:alice", "deny": ["push", "delete"], "repositories": "releases/**"},
    )
    assert allows(turned, ALICE, "push", "releases/app")


def test_what_no_rule_fits_is_denied() -> None:
    rules = compiled({"who": "authenticated", "allow": "pull"})
    assert not allows(rules, ALICE, "push", "app")
    assert not allows(rules, ANONYMOUS, "pull", "app")
    assert rules.decide(ALICE, Action.PUSH, RepositoryName.parse("app")).place is None


@pytest.mark.parametrize(
    ("who", "meant"),
    [
        ("anyone", {ALICE, CI, HOST, ANONYMOUS}),
        ("anonymous", {ANONYMOUS}),
        ("authenticated", {ALICE, CI, HOST}),
        ("user:alice", {ALICE}),
        ("user:ci", set()),
        ("robot:ci", {CI}),
        ("certificate:host1", {HOST}),
        ("group:dev", {ALICE, CI}),
        (["robot:ci", "anonymous"], {CI, ANONYMOUS}),
    ],
)
def test_whom_a_rule_is_about(who: Any, meant: set[Identity]) -> None:
    rules = compiled({"who": who, "allow": "pull"}, dev=["user:alice", "robot:ci"])
    assert {each for each in (ALICE, CI, HOST, ANONYMOUS) if allows(rules, each, "pull", "app")} == meant


def test_groups_that_a_token_server_tells_count_once_they_are_declared() -> None:
    rules = compiled({"who": "group:ops", "allow": "admin"}, ops=[])
    assert allows(rules, Identity("olga", Kind.USER, frozenset({"ops"})), "admin", "app")
    assert not allows(rules, Identity("olga", Kind.USER), "admin", "app")


def test_what_concerns_the_whole_registry_needs_a_rule_for_every_repository() -> None:
    everywhere = compiled({"who": "user:alice", "allow": "admin"})
    somewhere = compiled({"who": "user:alice", "allow": "admin", "repositories": "a/**"})
    assert everywhere.decide(ALICE, Action.ADMIN, None).is_allowed
    assert not somewhere.decide(ALICE, Action.ADMIN, None).is_allowed


def test_the_catalogue_is_for_who_is_known_and_for_who_may_read_anything() -> None:
    rule = {"who": "anonymous", "allow": "pull", "repositories": "public/**"}
    public = ByRules(Access.model_validate({"rules": [rule]}))
    private = ByRules(Access.model_validate({"rules": [{"who": "authenticated", "allow": "pull"}]}))
    assert public.allows(ANONYMOUS, Action.PULL, None)
    assert not private.allows(ANONYMOUS, Action.PULL, None)
    assert private.allows(ALICE, Action.PULL, None)


async def test_without_rules_who_is_known_may_everything() -> None:
    policy = KnownMayAll()
    await policy.refresh()
    assert policy.allows(ALICE, Action.ADMIN, None)
    assert not policy.allows(ANONYMOUS, Action.PULL, RepositoryName.parse("app"))
    assert [Somebody(each, policy).name for each in (ALICE, ANONYMOUS)] == ["alice", None]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"who": "alice", "allow": "pull"}, "expected anyone, anonymous, authenticated, group:NAME, user:NAME"),
        ({"who": "user:", "allow": "pull"}, "expected anyone"),
        ({"who": "user: x", "allow": "pull"}, "expected anyone"),
        ({"who": [], "allow": "pull"}, "at least 1 item"),
        ({"who": "anyone"}, "expected either allow or deny"),
        ({"who": "anyone", "allow": "pull", "deny": "push"}, "expected either allow or deny"),
        ({"who": "anyone", "allow": "read"}, "'pull', 'push', 'delete' or 'admin'"),
        ({"who": "anyone", "allow": "pull", "repositories": "a**"}, "expected a repository's name"),
        ({"who": "anyone", "allow": "pull", "repositories": "UPPER"}, "expected a repository's name"),
        ({"who": "anyone", "allow": "pull", "repositories": "/a"}, "expected a repository's name"),
        ({"who": "anyone", "allow": "pull", "repositories": []}, "at least 1 item"),
        ({"who": "anyone", "allow": "pull", "repository": "a"}, "Extra inputs"),
        ({"who": "group:dev", "allow": "pull"}, "rule 1: 'group:dev' is not declared under groups"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Rules.model_validate({"rules": [rule]})
    assert told in str(refused.value)


def test_rules_stand_in_one_place(tmp_path: Path) -> None:
    rule = {"who": "anyone", "allow": "pull"}
    with pytest.raises(ValidationError, match="either here or in the file"):
        Access.model_validate({"rules": [rule], "file": str(tmp_path)})


FILE = """\
groups:
  dev: [user:alice]
rules:
  - {who: group:dev, allow: [pull, push], repositories: "team-a/**"}
  - who: anyone
    allow: pull
"""


def test_a_file_tells_the_line_of_the_rule_that_decides(tmp_path: Path) -> None:
    rules = from_file(FILE.encode(), Path("access.yml"))
    assert rules.decide(ALICE, Action.PUSH, RepositoryName.parse("team-a/x")).place == "access.yml:4"
    assert rules.decide(CI, Action.PULL, RepositoryName.parse("team-a/x")).place == "access.yml:5"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (FILE.replace("allow: pull", "allow: pul"), "access.yml:6: rules[1].allow[0]: 'pull', 'push', 'delete' or"),
        (FILE.replace("who: anyone", "whom: anyone"), "access.yml:5: rules[1].whom: unknown key"),
        (FILE.replace("user:alice", "alice"), "access.yml:2: groups.dev[0]: expected user:NAME, robot:NAME or cert"),
        (FILE.replace("dev:", "developers:"), "access.yml:1: rule 1: 'group:dev' is not declared under groups"),
        ("rules: [", "access.yml:1: no YAML"),
    ],
)
def test_a_file_that_is_wrong_names_the_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        from_file(text.encode(), Path("access.yml"))
    assert told in refused.value.message


async def test_a_file_that_changes_is_in_force_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "access.yml"
    file.write_text(FILE)
    policy, name = ByRules(Access(file=file)), RepositoryName.parse("team-a/x")
    await policy.refresh()
    assert policy.allows(ALICE, Action.PUSH, name)
    caplog.set_level(logging.INFO, "registry")
    for broken in (FILE.replace("pull", "pul"), None):
        file.unlink()
        if broken:
            file.write_text(broken)
        await policy.refresh()
        assert policy.allows(ALICE, Action.PUSH, name)
    assert "access.yml:4: rules[0].allow[0]: " in caplog.text
    assert "No such file or directory; what" in caplog.text
    file.write_text(FILE.replace("user:alice", "user:bob"))
    await policy.refresh()
    assert not policy.allows(ALICE, Action.PUSH, name)
    assert "has changed" in caplog.text
    told = len(caplog.records)
    await policy.refresh()
    assert len(caplog.records) == told


def test_a_file_without_rules_denies_everything(tmp_path: Path) -> None:
    (tmp_path / "access.yml").write_text("")
    policy = ByRules(Access(file=tmp_path / "access.yml"))
    assert not policy.allows(ALICE, Action.PULL, RepositoryName.parse("app"))
    assert Access(file=tmp_path / "access.yml").is_given
    assert not Access().is_given
