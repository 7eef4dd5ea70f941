"""The htpasswd file: what counts in it, and what is said of the rest."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.passwords import Passwords, hash_password, matches
from registry.config import ConfigError
from tests.support.callers import cheap_hash

PATH = Path("htpasswd")
HASH = cheap_hash("baggins")


def parse(text: str) -> Passwords:
    return Passwords.parse(text.encode(), PATH)


def test_comments_empty_lines_and_spaces_around_do_not_count_and_the_later_line_does() -> None:
    found = parse(f"# users\n\n  frodo:{HASH}  \r\n\tsam:{HASH}\nsam:{HASH.replace('$2b', '$2y')}\n")
    assert found.hashes == {"frodo": HASH.encode(), "sam": HASH.replace("$2b", "$2y").encode()}
    assert found.remarks == ()


@pytest.mark.parametrize("letter", ["a", "b", "y"])
def test_hashes_of_every_bcrypt_are_taken(letter: str) -> None:
    hashed = parse(f"frodo:{HASH.replace('$2b', f'$2{letter}')}").hashes["frodo"]
    assert matches("baggins", hashed)
    assert not matches("Baggins", hashed)


@pytest.mark.parametrize(
    ("hashed", "reason"),
    [
        ("{SHA}5siv5c0SHx681xU6GiSx9ZQryqs=", "its hash is not bcrypt's"),
        ("$apr1$Vh2FCbPP$5VYKyQMPHyGbaWQ7NgqUL1", "its hash is not bcrypt's"),
        ("plain", "its hash is not bcrypt's"),
        ("", "its hash is not bcrypt's"),
        (HASH[:-1], "its hash is not bcrypt's"),
        (HASH.replace("$04$", "$03$"), "the cost of its hash is 03, expected 04 to 16"),
        (HASH.replace("$04$", "$31$"), "the cost of its hash is 31, expected 04 to 16"),
    ],
    # A hash is another one each time, and every process of a run has to name the same tests.
    ids=["sha", "apr1", "plain", "empty", "cut", "cheap", "dear"],
)
def test_a_user_who_cannot_log_in_is_told_with_its_line_and_not_its_hash(hashed: str, reason: str) -> None:
    found = parse(f"sam:{HASH}\nfrodo:{hashed}\n")
    assert set(found.hashes) == {"sam"}
    (remark,) = found.remarks
    assert remark.startswith(f"htpasswd:2: user 'frodo' cannot log in: {reason}")
    assert not hashed or hashed not in remark


def test_a_later_line_that_is_unusable_takes_the_user_away() -> None:
    assert parse(f"frodo:{HASH}\nfrodo:plain\n").hashes == {}


@pytest.mark.parametrize("line", [b"frodo", b":hash", b"caf\xe9:x"])
def test_a_line_that_is_none_is_named(line: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^htpasswd:2: expected (user:hash|UTF-8)$"):
        Passwords.parse(b"# users\n" + line + b"\n", PATH)


def test_users_that_there_are_not_cost_as_much_as_most_of_those_that_there_are() -> None:
    dear = HASH.replace("$04$", "$05$")
    assert parse(f"a:{HASH}\nb:{dear}\nc:{dear}\n").dummy.startswith(b"$2b$05$")
    assert parse("").dummy.startswith(b"$2b$12$")
    assert not bcrypt.checkpw(b"", parse(f"a:{HASH}").dummy)


def test_what_has_the_form_of_a_hash_and_is_none_matches_nothing() -> None:
    assert not matches("baggins", HASH.encode()[:7] + b"z" * 22 + HASH.encode()[29:])


def test_the_first_72_bytes_of_a_password_count_as_they_do_with_htpasswd() -> None:
    assert matches("x" * 72 + "and more", cheap_hash("x" * 72).encode())
    assert not matches("x" * 71, cheap_hash("x" * 72).encode())


@pytest.mark.parametrize(("password", "told"), [("", "empty"), ("a\nb", "control"), ("é" * 37, "longer than 72 bytes")])
def test_a_new_password_is_one_that_can_be_sent_and_counts_whole(password: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        hash_password(password)


def test_a_new_hash_is_one_that_the_file_takes() -> None:
    hashed = hash_password("pässword: with spaces")
    assert parse(f"frodo:{hashed}").hashes
    assert matches("pässword: with spaces", hashed.encode())


@given(st.binary(max_size=200))
def test_no_file_is_a_fault(data: bytes) -> None:
    with suppress(ConfigError):
        found = Passwords.parse(data, PATH)
        assert len(found.hashes) + len(found.remarks) <= data.count(b"\n") + 1
