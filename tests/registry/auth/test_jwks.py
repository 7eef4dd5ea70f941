"""Keys that tokens are verified by, and how they come and go while the registry serves."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from registry.auth import tokens_keys
from registry.auth.jwks import StoredKey, libtrust_id, parse_jwks, thumbprint
from registry.auth.tokens_keys import OutsideKeys, RemoteKeys, Roots
from registry.config import ConfigError
from tests.support.tokens import certify, jwk, jwks, key
from tests.support.tokenserver import OutsideServer


@pytest.fixture
def key_server() -> Iterator[OutsideServer]:
    with OutsideServer() as server:
        yield server


def encoded(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize(
    ("kind", "algorithms"),
    [
        ("RSA2048", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        ("P-256", {"ES256"}),
        ("P-384", {"ES384"}),
        ("P-521", {"ES512"}),
        ("Ed25519", {"EdDSA"}),
        ("Ed448", {"EdDSA"}),
    ],
)
def test_a_key_verifies_what_its_kind_can_and_nothing_else(kind: str, algorithms: set[str]) -> None:
    found = parse_jwks(encoded(jwk(key(kind), "one")), "f")
    assert found["one"].algorithms == algorithms
    assert found[thumbprint(found["one"].key)] is found["one"]
    alg = min(algorithms)
    assert parse_jwks(encoded(jwk(key(kind), "one", alg=alg)), "f")["one"].algorithms == {alg}


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    given = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    }
    (found,) = parse_jwks(encoded(given), "f")
    assert found == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_libtrusts_id_is_what_openssl_makes_of_the_key(tmp_path: Path) -> None:
    root = certify("root", ca=True)
    (tmp_path / "key").write_bytes(root.public)
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", tmp_path / "key", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    text = base64.b32encode(sha256(der).digest()[:30]).decode()
    assert libtrust_id(root.key.public_key()) == ":".join(re.findall("....", text))
    assert len(text) == 48


def test_what_is_not_for_signatures_is_passed_over() -> None:
    good = jwk(key(), "one")
    others = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "future", "kid": "future"},
        jwk(key(), "enc", use="enc"),
        jwk(key(), "wrap", key_ops=["wrapKey"]),
    ]
    found = parse_jwks(encoded(good, *others), "f")
    assert set(found) == {"one", thumbprint(key().public_key())}
    with pytest.raises(ConfigError, match="no key in it could verify"):
        parse_jwks(encoded(*others), "f")


def test_of_a_private_key_its_public_half_is_taken() -> None:
    der = key().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    numbers = key().private_numbers()
    private = jwk(key(), "one", d=base64.urlsafe_b64encode(numbers.private_value.to_bytes(32, "big")).decode())
    stored = parse_jwks(encoded(private), "f")["one"]
    assert stored.key == key().public_key()
    assert der not in repr(stored).encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"nothing", "not valid JSON"),
        (b"[]", "expected a JSON Web Key Set"),
        (b'{"keys": {}}', "expected a JSON Web Key Set"),
        (b'{"keys": []}', "no key in it"),
        (b'{"keys": [], "keys": []}', "stands twice"),
        (encoded(*[{}] * 1001), "at most 1000"),
        (encoded(1), "key 1: expected an object"),
        (encoded({"kty": "EC", "crv": "P-256", "x": "AA"}), "key 1: is no usable EC key"),
        (encoded({"kty": "RSA", "n": "AA", "e": 5}), "key 1: is no usable RSA key"),
        (encoded(jwk(key("RSA1024"), "one")), "RSA of at least 2048 bits"),
        (encoded(jwk(key("K-256"), "one")), "its kind, length or alg"),
        (encoded(jwk(key(), "one", alg="HS256")), "its kind, length or alg"),
        (encoded(jwk(key(), "one", alg="RS256")), "its kind, length or alg"),
    ],
)
def test_a_set_that_cannot_be_used_is_told_in_one_line(data: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse_jwks(data, "keys.json")
    assert caught.value.message.startswith("keys.json: ")
    assert "\n" not in caught.value.message


def test_certificates_give_their_keys_by_both_kinds_of_id() -> None:
    root, other = certify("root", ca=True), certify("ed", private=key("Ed25519"), ca=True)
    found = Roots.parse(root.pem + other.pem, "f")
    assert len(found.certificates) == 2
    for each in (root, other):
        public = each.key.public_key()
        assert found.keys[libtrust_id(public)] is found.keys[thumbprint(public)]
    with pytest.raises(ConfigError, match="expected certificates in PEM"):
        Roots.parse(root.public, "f")
    assert StoredKey.of(b"") is None


async def test_files_are_read_again_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = certify("root", ca=True)
    bundle, file = tmp_path / "roots.pem", jwks(tmp_path / "jwks.json", jwk(key(), "one"))
    bundle.write_bytes(root.pem)
    found = OutsideKeys(bundle, str(file))
    assert found.find("one")
    assert not found.find("two")
    assert found.find(libtrust_id(root.key.public_key()))
    before = found.roots
    jwks(file, jwk(key("P-256", 2), "two"))
    bundle.write_bytes(certify("other", ca=True).pem)
    assert not found.is_current()
    await found.refresh()
    assert found.is_current()
    assert found.find("two")
    assert not found.find("one")
    assert found.roots != before
    file.write_text("torn")
    await found.refresh()
    assert found.find("two")
    assert "what" in caplog.text
    await found.look_again()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "one\x00", "", "one/../one"])
def test_an_id_is_a_key_of_a_dictionary_and_no_path(tmp_path: Path, name: str) -> None:
    found = OutsideKeys(None, str(jwks(tmp_path / "jwks.json", jwk(key(), "one"))))
    assert found.roots == ()
    assert found.find(name) is None


def test_files_that_are_not_there_are_told_before_anything_listens(tmp_path: Path) -> None:
    none, there = tmp_path / "none", jwks(tmp_path / "jwks.json", jwk(key(), "one"))
    for given, name in (((none, str(there)), "rootcertbundle"), ((None, str(none)), "jwks")):
        with pytest.raises(ConfigError, match=rf"^auth\.token\.{name}: {none}: No such file"):
            OutsideKeys(*given)


async def test_a_file_that_becomes_useless_is_named_with_its_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(certify("root").pem)
    found = OutsideKeys(bundle, str(jwks(tmp_path / "jwks.json", jwk(key(), "one"))))
    bundle.write_text("nothing")
    time.sleep(0.1)  # as long as nobody looks again
    await found.refresh()
    assert f"auth.token.rootcertbundle: {bundle}: expected certificates in PEM" in caplog.text
    assert found.roots


async def test_keys_at_an_address_are_fetched_at_most_once_a_minute(
    key_server: OutsideServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(tokens_keys.time, "monotonic", lambda: now)
    key_server.body = encoded(jwk(key(), "one"))
    found = RemoteKeys(key_server.url)
    await found.refresh()
    assert set(found.keys) == {"one", thumbprint(key().public_key())}
    key_server.body = encoded(jwk(key(), "two"))
    now += 59
    await found.refresh()
    assert "two" not in found.keys
    assert key_server.asked == 1
    for body, status, told in (
        (b"torn", 200, "not valid JSON"),
        (b"x" * (1 << 20) + b"x", 200, "more than 1048576 bytes"),
        (encoded(jwk(key(), "two")), 500, "answered with 500"),
        (encoded(jwk(key(), "two")), 302, "answered with 302"),
    ):
        now += 60
        key_server.body, key_server.status = body, status
        caplog.clear()
        await found.refresh()
        assert "one" in found.keys
        assert told in caplog.text
        assert "stay in force" in caplog.text
    now += 60
    key_server.status = 200
    await found.refresh()
    assert "two" in found.keys
    assert "one" not in found.keys


async def test_without_any_answer_no_token_can_be_verified_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with OutsideServer() as server:
        url = server.url
    found = RemoteKeys(url)
    await found.refresh()
    assert not found.keys
    assert "Connection refused; no token can be verified" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
