"""Tokens of an outside token server: what is let in, and every forgery that is not."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.authenticator import Basic, Bearer, Identity, Kind
from registry.auth.jwks import libtrust_id, thumbprint
from registry.auth.tokens import OutsideTokens
from registry.config import ConfigError, Settings
from registry.config.authentication import Token
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, serving
from tests.support.callers import basic, htpasswd
from tests.support.images import sha256
from tests.support.tokens import (
    ALGORITHMS,
    ISSUER,
    PULL,
    PUSH,
    REALM,
    SERVICE,
    Certified,
    bearer,
    certify,
    claims,
    jwk,
    jwks,
    key,
    raw,
    segment,
    signed,
)
from tests.support.tokenserver import OutsideServer

SCOPE: Any = {"scheme": "http", "headers": []}


def config(**members: Any) -> dict[str, Any]:
    return {"realm": REALM, "service": SERVICE, "issuer": ISSUER, **members}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def root(folder: Path) -> Certified:
    """Its certificate is the bundle `roots.pem`."""
    made = certify("root", ca=True, ends=10)
    (folder / "roots.pem").write_bytes(made.pem)
    return made


@pytest.fixture(scope="module")
def tokens(folder: Path, root: Certified) -> OutsideTokens:
    """Takes `key()`, known as `one`, those of all algorithms, and what `root` has signed for."""
    named = [jwk(key(kind), kind) for kind in set(ALGORITHMS.values())]
    file = jwks(folder / "jwks.json", jwk(key(), "one"), *named)
    return OutsideTokens(Token(**config(jwks=str(file), rootcertbundle=folder / "roots.pem")))


async def known(tokens: OutsideTokens, token: str) -> Identity | None:
    return await tokens.identify(Bearer(token), SCOPE)


async def test_a_token_tells_who_asks_and_what_for(tokens: OutsideTokens) -> None:
    found = await known(tokens, signed(groups=["dev"]))
    assert found is not None
    assert (found.name, found.kind, found.groups) == ("alice", Kind.USER, {"dev"})
    assert [str(each) for each in found.grants or ()] == ["repository:team/app:pull,push,delete"]
    assert found.holds is not None
    assert found.holds()
    assert await tokens.identify(Basic("alice", signed()), SCOPE) is None
    assert await tokens.identify(None, SCOPE) is None


@pytest.mark.parametrize("subject", ["", None])
async def test_a_token_may_be_nobodys(tokens: OutsideTokens, subject: str | None) -> None:
    found = await known(tokens, signed(sub=subject, access=None))
    assert found is not None
    assert (found.name, found.kind, found.grants) == (None, Kind.ANONYMOUS, ())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_asymmetric_algorithm_is_known(tokens: OutsideTokens, algorithm: str) -> None:
    kind = ALGORITHMS[algorithm]
    assert await known(tokens, signed(key(kind), algorithm, {"kid": kind}))


@pytest.mark.parametrize("name", [thumbprint, libtrust_id])
async def test_the_key_of_a_root_is_known_by_its_ids(
    tokens: OutsideTokens, root: Certified, name: Callable[[Any], str]
) -> None:
    assert await known(tokens, signed(root.key, header={"kid": name(root.key.public_key())}))


NOW = int(time.time())


@pytest.mark.parametrize(("claim", "seconds"), [("exp", -30), ("exp", 10.5), ("nbf", 30), ("iat", 10_000)])
async def test_clocks_may_differ_by_a_minute(tokens: OutsideTokens, claim: str, seconds: float) -> None:
    assert await known(tokens, signed(**{claim: time.time() + seconds}))


@pytest.mark.parametrize(
    "others",
    [
        {"aud": [SERVICE]},
        {"aud": ["other", SERVICE]},
        {"nbf": None, "iat": None},
        {"jti": "x", "unknown": {"a": 1}},
        {"access": [{"type": "repository", "class": "image", "name": "a", "actions": None}]},
    ],
)
async def test_what_the_specification_leaves_open_is_taken(tokens: OutsideTokens, others: dict[str, Any]) -> None:
    assert await known(tokens, signed(**others))


@pytest.mark.parametrize(
    "others",
    [
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": []},
        {"aud": None},
        {"aud": {SERVICE: 1}},
        {"aud": SERVICE + ".evil"},
        {"iss": "other"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"exp": NOW - 100},
        {"exp": None},
        {"exp": 0},
        {"exp": "99999999999"},
        {"exp": True},
        {"exp": 1e300},
        {"exp": [NOW + 300]},
        {"nbf": NOW + 1000},
        {"nbf": "0"},
        {"sub": 5},
        {"sub": "alice\nadmin"},
        {"sub": "a" * 513},
        {"groups": "dev"},
        {"groups": [1]},
        {"access": {}},
        {"access": [1]},
        {"access": [{"type": "repository", "name": "a", "actions": "pull"}]},
        {"access": [{"type": "repository", "name": "a", "actions": [1]}]},
        {"access": [{"type": "repository", "actions": ["pull"]}]},
    ],
    ids=lambda others: re.sub(r"\b\d{10}\b", "time", str(others)),  # the same in every process of a run
)
async def test_claims_that_do_not_do_are_refused(tokens: OutsideTokens, others: dict[str, Any]) -> None:
    try:
        token = signed(**others)
    except TypeError:  # PyJWT does not sign everything
        token = raw({"alg": "ES256", "kid": "one"}, claims(**others))
    assert await known(tokens, token) is None


def by_secret(secret: bytes) -> str:
    """HS256 with a public key as the secret, which no library signs (CVE-2016-10555)."""
    import hashlib
    import hmac

    text = ".".join(segment(json.dumps(each).encode()) for each in ({"alg": "HS256", "kid": "one"}, claims()))
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def public(encoding: Encoding) -> bytes:
    return bytes(key().public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))


OTHER = key("P-256", 99)
FORGED = {
    "a key in its own header (CVE-2025-24976)": signed(OTHER, header={"kid": "one", "jwk": jwk(OTHER, "one")}),
    "that key alone": signed(OTHER, header={"jwk": jwk(OTHER, "one")}),
    "the id in that key alone": signed(header={"jwk": jwk(key(), "one")}),
    "a key elsewhere": signed(OTHER, header={"kid": "two", "jku": "http://127.0.0.1:1/keys"}),
    "certificates elsewhere": signed(OTHER, header={"x5u": "http://127.0.0.1:1/chain"}),
    "no signature": jwt.encode(claims(), None, "none", headers={"kid": "one"}),
    "no signature, spelt otherwise": raw({"alg": "None", "kid": "one"}, claims()),
    "no algorithm": raw({"kid": "one"}, claims()),
    "algorithms": raw({"alg": ["ES256"], "kid": "one"}, claims()),
    "an algorithm in small letters": raw({"alg": "es256", "kid": "one"}, claims()),
    "a shared secret": jwt.encode(claims(), "s" * 64, "HS256", headers={"kid": "one"}),
    "the public key as a secret": by_secret(public(Encoding.PEM)),
    "its bytes as a secret": by_secret(public(Encoding.DER)),
    "a stranger's key": signed(OTHER),
    "another algorithm than the key's": signed(key("RSA2048"), "RS256"),
    "another kind's key": signed(header={"kid": "RSA2048"}),
    "an algorithm of another curve": raw({"alg": "ES384", "kid": "one"}, claims()),
    "no key at all": signed(header={}),
    "an empty id": signed(header={"kid": ""}),
    "an id that is no text": raw({"alg": "ES256", "kid": 1}, claims()),
    "an unknown id": signed(header={"kid": "two"}),
    "an id that is a path": signed(header={"kid": "../../../dev/null"}),
    "an id that is a statement": signed(header={"kid": "one' OR '1'='1"}),
    "a header that must be understood": raw({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": False}, claims()),
    "doubled claims": raw({"alg": "ES256", "kid": "one"}, json.dumps(claims(iss="x"))[:-1] + f',"iss":"{ISSUER}"}}'),
    "a doubled header": raw('{"alg":"none","alg":"ES256","kid":"one"}', claims()),
    "doubled actions": raw({"alg": "ES256", "kid": "one"}, json.dumps(claims())[:-1] + ',"access":[]}'),
    "claims that are a list": raw({"alg": "ES256", "kid": "one"}, "[]"),
    "claims that are no JSON": raw({"alg": "ES256", "kid": "one"}, "{"),
    "a header that is a text": raw('"ES256"', claims()),
    "no end of time": raw(
        {"alg": "ES256", "kid": "one"}, json.dumps(claims(exp=5)).replace('"exp": 5', '"exp": 1e999')
    ),
    "nothing": "",
    "two parts": signed().rpartition(".")[0],
    "four parts": signed() + ".x",
    "an encrypted token": signed() + ".x.y",
    "padding": signed() + "=",
    "a part of a byte": signed() + "A",
    "another alphabet": signed().replace("-", "+").replace("_", "/") + "+",
    "a long token": signed(unknown="x" * 40_000),
}


@pytest.mark.parametrize("kind", FORGED)
async def test_a_forgery_is_nobodys(tokens: OutsideTokens, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    caplog.set_level("INFO", "registry")
    assert await known(tokens, FORGED[kind]) is None
    (record,) = caplog.records
    assert "refused: " in record.message
    assert "\n" not in record.message
    assert not FORGED[kind] or FORGED[kind] not in record.message


VALID = signed(exp=NOW + 100_000)


@given(
    at=st.integers(0, len(VALID) - 1), text=st.characters(codec="ascii"), kind=st.sampled_from(["put", "add", "cut"])
)
async def test_whatever_is_changed_about_a_token_it_is_refused(
    tokens: OutsideTokens, at: int, text: str, kind: str
) -> None:
    changed = VALID[:at] + {"put": text, "add": text, "cut": ""}[kind] + VALID[at + (kind != "add") :]
    assert (await known(tokens, changed) is not None) == (changed == VALID)


@given(st.text(max_size=200) | st.binary(max_size=200).map(segment) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*"))
async def test_whatever_is_no_token_is_refused(tokens: OutsideTokens, text: str) -> None:
    assert await known(tokens, text) is None


def chain(*certificates: Certified) -> dict[str, Any]:
    return {"x5c": [each.der for each in certificates]}


async def test_certificates_that_lead_to_a_root_are_believed(tokens: OutsideTokens, root: Certified) -> None:
    middle = certify("middle", root, ca=True)
    leaf, below = certify("leaf", root), certify("below", middle, ca=None)
    assert await known(tokens, signed(leaf.key, header=chain(leaf)))
    assert await known(tokens, signed(leaf.key, header={"kid": "unknown", **chain(leaf)}))
    assert await known(tokens, signed(below.key, header=chain(below, middle)))
    assert await known(tokens, signed(below.key, header=chain(below, leaf, middle, root)))
    assert await known(tokens, signed(root.key, header=chain(root)))
    rsa = certify("rsa", root, key("RSA2048"))
    assert await known(tokens, signed(rsa.key, "RS256", header=chain(rsa)))


def usage(*, signs: bool) -> tuple[tuple[Any, bool], ...]:
    false = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"], False
    )
    given = x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, encipher_only=False, decipher_only=False, **false
    )
    return ((given, True),)


def bad_chains(root: Certified) -> dict[str, tuple[Any, dict[str, Any]]]:
    stranger = certify("root", ca=True)
    evil = certify("evil", stranger)
    leaf, late, early = certify("leaf", root), certify("late", root, ends=-0.5), certify("early", root, begins=0.5)
    middle, old = certify("middle", root, ca=True), certify("old", root, ca=True, ends=-0.1)
    idle = certify("idle", root, ca=True, extensions=usage(signs=False))
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
    strange = certify("strange", root, extensions=((odd, True),))
    short = certify("short", root, key("RSA1024"))
    by_leaf, below, by_old, by_idle = (certify("below", each) for each in (leaf, middle, old, idle))
    return {
        "another root of the same name": (evil.key, chain(evil, stranger)),
        "a leaf of another root, and the root": (evil.key, chain(evil, root)),
        "a stranger's leaf alone": (evil.key, chain(evil)),
        "a leaf without what leads to the root": (below.key, chain(below)),
        "no certificate": (leaf.key, {"x5c": []}),
        "no list": (leaf.key, {"x5c": leaf.der}),
        "what is no certificate": (leaf.key, {"x5c": ["AAAA", "!"]}),
        "what is no text": (leaf.key, {"x5c": [1]}),
        "too many": (leaf.key, chain(*[leaf] * 11)),
        "an expired leaf": (late.key, chain(late)),
        "a leaf of tomorrow": (early.key, chain(early)),
        "an expired middle": (by_old.key, chain(by_old, old)),
        "a leaf that signs": (by_leaf.key, chain(by_leaf, leaf)),
        "a middle that must not sign": (by_idle.key, chain(by_idle, idle)),
        "an extension that must be understood": (strange.key, chain(strange)),
        "another key than the leaf's": (OTHER, chain(leaf)),
        "a stored id beside a stranger's chain": (key(), {"kid": "one", **chain(evil)}),
        "a short key": (short.key, chain(short)),
    }


KINDS = list(bad_chains(certify("root", ca=True)))


@pytest.mark.parametrize("kind", KINDS)
async def test_certificates_that_lead_nowhere_are_not(tokens: OutsideTokens, root: Certified, kind: str) -> None:
    private, header = bad_chains(root)[kind]
    algorithm = "RS256" if kind == "a short key" else "ES256"
    with pytest.warns(jwt.InsecureKeyLengthWarning) if algorithm == "RS256" else pytest.MonkeyPatch.context():
        token = signed(private, algorithm, header)
    assert await known(tokens, token) is None


async def test_an_expired_root_leads_nowhere(folder: Path) -> None:
    old = certify("old", ca=True, begins=-2, ends=-1)
    (folder / "old.pem").write_bytes(old.pem)
    tokens = OutsideTokens(Token(**config(rootcertbundle=folder / "old.pem")))
    leaf = certify("leaf", old)
    assert await known(tokens, signed(leaf.key, header=chain(leaf))) is None


async def test_without_roots_a_chain_says_nothing_and_the_id_counts(folder: Path) -> None:
    tokens = OutsideTokens(Token(**config(jwks=str(jwks(folder / "alone.json", jwk(key(), "one"))))))
    leaf = certify("leaf")
    assert await known(tokens, signed(leaf.key, header=chain(leaf))) is None
    assert await known(tokens, signed(header={"kid": "one", **chain(leaf)}))


async def test_what_was_verified_holds_until_its_end_and_while_its_key_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = certify("root", ca=True)
    leaf = certify("leaf", root, ends=0.001)
    file, bundle = jwks(tmp_path / "jwks.json", jwk(key(), "one")), tmp_path / "roots.pem"
    bundle.write_bytes(root.pem)
    tokens = OutsideTokens(Token(**config(jwks=str(file), rootcertbundle=bundle)))
    by_key, by_chain = (
        await known(tokens, signed()),
        await known(tokens, signed(leaf.key, header=chain(leaf), exp=NOW + 5000)),
    )
    assert by_key
    assert by_chain
    real = time.time
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: real() + 100)
        assert by_key.holds()
        assert not by_chain.holds()
        patched.setattr(time, "time", lambda: real() + 361)
        assert not by_key.holds()
    assert by_chain.holds()
    jwks(file, jwk(key(), "two"))
    assert not by_key.holds()
    assert await known(tokens, signed()) is None
    again = await known(tokens, signed(leaf.key, header=chain(leaf)))
    bundle.write_bytes(certify("other", ca=True).pem)
    assert not again.holds()
    assert await known(tokens, signed(leaf.key, header=chain(leaf))) is None


async def test_an_unknown_id_asks_for_the_keys_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("registry.auth.tokens_keys.time.monotonic", lambda: now)
    with OutsideServer() as server:
        tokens = OutsideTokens(Token(**config(jwks=server.url)))
        assert await known(tokens, signed())
        server.signing = (OTHER, "two")
        server.publish()
        rotated = signed(OTHER, header={"kid": "two"})
        assert await known(tokens, rotated) is None
        now += 60
        assert await known(tokens, rotated)
        assert await known(tokens, signed()) is None
        assert server.asked == 2


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, "expected rootcertbundle or jwks"),
        ({"jwks": "f", "signingalgorithms": ["ES256", "HS256"]}, "got 'HS256': whoever verifies such a token could"),
        ({"jwks": "f", "signingalgorithms": ["none"]}, "got 'none'"),
        ({"jwks": "f", "signingalgorithms": ["ES256K"]}, "got 'ES256K'"),
        ({"jwks": "https://me:secret@keys.example.com/"}, "without user and password"),
        ({"jwks": "ftp://keys.example.com/"}, "expected an address"),
        ({"jwks": "f", "realm": "https://me:secret@auth.example.com/"}, "without user and password"),
        ({"jwks": "f", "realm": "auth"}, "expected an address"),
        ({"jwks": "f", "realm": "http://[x/"}, "expected an address"),
        ({"jwks": "f", "issuer": ""}, "at least 1 character"),
    ],
)
def test_a_configuration_that_would_let_in_too_many_is_none(members: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        Token(**config(**members))
    assert "secret@" not in caught.value.errors()[0]["msg"]


def test_the_algorithms_that_are_configured_are_the_only_ones(folder: Path) -> None:
    assert Token(**config(jwks="f", signingalgorithms=["EdDSA"])).signingalgorithms == ("EdDSA",)
    with pytest.raises(ConfigError, match=r"^auth\.token\.jwks: .*nowhere: No such file"):
        OutsideTokens(Token(**config(jwks=str(folder / "nowhere"))))


async def test_an_algorithm_that_is_not_configured_is_refused(folder: Path) -> None:
    file = jwks(folder / "two.json", jwk(key(), "one"), jwk(key("Ed25519"), "ed"))
    tokens = OutsideTokens(Token(**config(jwks=str(file), signingalgorithms=["EdDSA"])))
    assert await known(tokens, signed(key("Ed25519"), "EdDSA", {"kid": "ed"}))
    assert await known(tokens, signed()) is None


@asynccontextmanager
async def registry(token: dict[str, Any], **sections: Any) -> AsyncIterator[Api]:
    auth = {"token": token, **sections.pop("auth", {})}
    given = {"storage": {"delete": {"enabled": True}}, "auth": auth, **sections}
    async with serving(MemoryEngine(), Settings.model_validate(given)) as api:
        yield api


def told(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.code, answer.headers.get("www-authenticate")


def asks(scope: str = "", error: str = "", realm: str = REALM) -> str:
    more = (f',scope="{scope}"' if scope else "") + (f',error="{error}"' if error else "")
    return f'Bearer realm="{realm}",service="{SERVICE}"{more}'


async def test_a_client_is_sent_for_what_it_needs_and_let_in_with_it(folder: Path) -> None:
    layer = b"a layer"
    async with registry(config(jwks=str(jwks(folder / "keys", jwk(key(), "one"))))) as api:
        assert told(await api.get("/v2/")) == (401, "UNAUTHORIZED", asks())
        for method, target, scope in (
            ("GET", "/v2/team/app/manifests/1", "repository:team/app:pull"),
            ("HEAD", f"/v2/team/app/blobs/{sha256(layer)}", "repository:team/app:pull"),
            ("POST", "/v2/team/app/blobs/uploads/", "repository:team/app:pull,push"),
            ("PUT", "/v2/team/app/manifests/1", "repository:team/app:pull,push"),
            ("DELETE", "/v2/team/app/manifests/1", "repository:team/app:delete"),
            ("GET", "/v2/_catalog", "registry:catalog:*"),
            (
                "POST",
                f"/v2/team/app/blobs/uploads/?mount={sha256(layer)}&from=base/app",
                "repository:team/app:pull,push repository:base/app:pull",
            ),
        ):
            answer = await api.ask(method, target)
            assert answer.headers["www-authenticate"] == asks(scope), target
            refused = await api.ask(method, target, headers=bearer(signed(OTHER)))
            assert refused.headers["www-authenticate"] == asks(scope, "invalid_token")
            short = await api.ask(method, target, headers=bearer(signed(access=[])))
            assert short.headers["www-authenticate"] == asks(scope, "insufficient_scope")
            elsewhere = [{"type": "repository", "name": "team/other", "actions": ["*"]}]
            assert (await api.ask(method, target, headers=bearer(signed(access=elsewhere)))).status == 401
        pushes = bearer(signed())
        assert (await api.ask("GET", "/v2/", headers=pushes)).status == 200
        begun = await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=pushes)
        put = await api.ask("PUT", f"{begun.headers['location']}?digest={sha256(layer)}", layer, pushes)
        assert put.status == 201
        blob = f"/v2/team/app/blobs/{sha256(layer)}"
        for who in ("alice", ""):
            pulls = bearer(signed(sub=who, access=PULL))
            assert (await api.ask("GET", blob, headers=pulls)).body == layer
            assert (await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=pulls)).status == 401
            assert (await api.ask("DELETE", blob, headers=pulls)).status == 401
        assert (await api.ask("DELETE", blob, headers=pushes)).status == 202


async def test_a_token_in_an_address_is_no_credential(folder: Path) -> None:
    async with registry(config(jwks=str(jwks(folder / "keys", jwk(key(), "one"))))) as api:
        for name in ("access_token", "token", "authorization"):
            assert (await api.get(f"/v2/?{name}={signed()}")).status == 401


async def test_a_star_covers_every_action_and_a_name_is_no_pattern(folder: Path) -> None:
    async with registry(config(jwks=str(jwks(folder / "keys", jwk(key(), "one"))))) as api:
        for name, kind, status in (
            ("team/app", "repository", 202),
            ("team/*", "repository", 401),
            ("**", "repository", 401),
            ("team/app", "registry", 401),
            ("Team/App", "repository", 401),
        ):
            access = [{"type": kind, "name": name, "actions": ["*"]}]
            answer = await api.ask("POST", "/v2/team/app/blobs/uploads/", headers=bearer(signed(access=access)))
            assert answer.status == status, name


async def test_rules_narrow_what_a_token_covers(folder: Path) -> None:
    rules = [{"who": "group:dev", "allow": "pull"}, {"who": "user:alice", "allow": ["pull", "push"]}]
    access = {"access": {"groups": {"dev": []}, "rules": rules}}
    async with registry(config(jwks=str(jwks(folder / "keys", jwk(key(), "one")))), layerhouse=access) as api:
        uploads = "/v2/team/app/blobs/uploads/"
        assert (await api.ask("POST", uploads, headers=bearer(signed()))).status == 202
        bob = signed(sub="bob", groups=["dev"])
        assert (await api.ask("POST", uploads, headers=bearer(bob))).status == 403
        assert (await api.ask("GET", "/v2/team/app/tags/list", headers=bearer(bob))).code == "NAME_UNKNOWN"
        assert (await api.ask("POST", uploads, headers=bearer(signed(access=PULL)))).status == 401
        assert (await api.ask("POST", uploads, headers=bearer(signed(sub="")))).status == 401


@pytest.mark.parametrize(
    ("headers", "scheme", "realm"),
    [
        ({"host": "registry.example.com"}, "http", "https://registry.example.com/a"),
        ({"host": "registry.example.com:5000"}, "https", "https://registry.example.com:5000/a"),
        ({"host": "registry.example.com", "x-forwarded-proto": "http"}, "http", "http://registry.example.com/a"),
        ({"host": "registry.example.com", "x-forwarded-proto": "http"}, "https", "https://registry.example.com/a"),
        ({"host": "registry.example.com", "x-forwarded-proto": "gopher"}, "http", "https://registry.example.com/a"),
        ({"host": "127.0.0.1:5000"}, "http", "http://127.0.0.1:5000/a"),
        ({"host": "127.0.0.1:5000", "x-forwarded-proto": "https"}, "http", "https://127.0.0.1:5000/a"),
        ({"host": "localhost"}, "http", "http://localhost/a"),
        ({"host": 'evil",x="'}, "http", REALM),
        ({}, "http", REALM),
    ],
)
def test_clients_are_sent_to_the_host_that_they_asked(
    folder: Path, headers: dict[str, str], scheme: str, realm: str
) -> None:
    given = config(jwks=str(jwks(folder / "keys", jwk(key(), "one"))), autoredirect=True, autoredirectpath="a")
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    found = OutsideTokens(Token(**given)).challenge((), None, {"scheme": scheme, "headers": fields})
    assert found == asks(realm=realm)


async def test_passwords_go_on_beside_tokens_and_bearer_is_asked_for(folder: Path) -> None:
    users = {"realm": "r", "path": str(htpasswd(folder / "htpasswd", alice="secret"))}
    token = config(jwks=str(jwks(folder / "keys", jwk(key(), "one"))))
    async with registry(token, auth={"htpasswd": users}) as api:
        assert told(await api.get("/v2/")) == (401, "UNAUTHORIZED", asks())
        assert (await api.ask("GET", "/v2/", headers=basic("alice", "secret"))).status == 200
        assert (await api.ask("GET", "/v2/", headers=bearer(signed()))).status == 200


def test_what_the_tests_sign_is_a_token() -> None:
    assert jwt.decode(signed(access=PUSH), key().public_key(), ["ES256"], audience=SERVICE)["access"] == PUSH


async def test_keys_at_an_address_are_fetched_before_the_first_token_comes() -> None:
    with OutsideServer() as server:
        async with registry(config(jwks=server.url)) as api, asyncio.timeout(30):
            while not server.asked:
                await asyncio.sleep(0.01)
            assert (await api.ask("GET", "/v2/", headers=bearer(signed()))).status == 200
            assert server.asked == 1
