"""What a request says of who sends it."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import Unauthorized
from ocispec.headers import Scope
from registry.auth.authenticator import CONTROLS, Basic, Bearer, Identity, Kind, parse_credentials

TEXT = st.text(st.characters(codec="utf-8"), max_size=80).filter(lambda text: not CONTROLS.search(text))


@given(TEXT.filter(lambda text: ":" not in text), TEXT, st.sampled_from(["Basic", "basic", "BASIC"]))
def test_user_and_password_arrive_as_they_were_sent(user: str, password: str, scheme: str) -> None:
    header = f"{scheme} ".encode() + b64encode(f"{user}:{password}".encode())
    assert parse_credentials(header) == (Basic(user, password) if user or password else None)


@given(st.from_regex(r"[A-Za-z0-9._~+/-]{1,99}=*", fullmatch=True))
def test_a_token_arrives_as_it_was_sent(token: str) -> None:
    assert parse_credentials(f"Bearer {token}".encode()) == Bearer(token)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic !!!!",
        b"Basic " + b64encode(b"no colon"),
        b"Basic " + b64encode(b"latin\xe9:1"),
        b"Basic " + b64encode(b"a\nb:c"),
        b"Basic " + b64encode(b"a:b\x00c"),
        b"Bearer",
        b"Bearer two words",
        b"Bearer caf\xe9",
        b"Negotiate YII=",
        b"hunter2",
    ],
)
def test_what_is_no_credentials_is_refused_without_repeating_it(header: bytes) -> None:
    with pytest.raises(Unauthorized) as refused:
        parse_credentials(header)
    assert refused.value.message.startswith("the Authorization header cannot be read: expected ")
    assert "hunter2" not in refused.value.message


@given(st.binary(max_size=99))
def test_no_bytes_are_a_fault(header: bytes) -> None:
    with suppress(Unauthorized):
        parse_credentials(header)


def test_secrets_are_not_shown() -> None:
    assert repr(Basic("alice", "hunter2")) == "Basic(user='alice')"
    assert repr(Bearer("hunter2")) == "Bearer()"


def test_a_token_covers_what_its_scopes_say_and_nothing_else() -> None:
    grants = (Scope.parse("repository:team/app:pull,push"), Scope.parse("registry:catalog:*"))
    limited = Identity("ci", Kind.ROBOT, grants=grants)
    assert limited.granted("repository", "team/app", "push")
    assert limited.granted("registry", "catalog", "*")
    assert not limited.granted("repository", "team/app", "delete")
    assert not limited.granted("repository", "team/app2", "pull")
    assert not limited.granted("registry", "team/app", "pull")
    assert not Identity("ci", Kind.ROBOT, grants=()).granted("repository", "team/app", "pull")
    assert Identity("ci", Kind.ROBOT).granted("repository", "anything", "delete")
