"""What the keys of `auth.token` do: which tokens let somebody in, and where he is sent for one."""

from __future__ import annotations

from typing import Any

from tests.registry.keys.places import Place
from tests.support.tokens import Certified, bearer, key, signed

LET_IN, ASKED = 404, 401
"""There is no such repository, which only those are told who may look."""
_SCOPE = 'scope="repository:team/app:pull"'


def _asked(place: Place, **headers: str) -> str:
    """The challenge that somebody gets who has no token."""
    with place.client() as client:
        return client.ask("GET", "/v2/team/app/tags/list", expect=ASKED, **headers).headers["www-authenticate"]


def _status(place: Place, token: str) -> int:
    with place.client(bearer(token)) as client:
        return client.ask("GET", "/v2/team/app/tags/list").status


def _token(place: Place, **claims: Any) -> str:
    """A token that is right for a place, but for these claims."""
    given = place.config["auth"]["token"]
    claims = {"iss": given["issuer"], "aud": given["service"], **claims}
    return signed(**claims) if "jwks" in given else _certified(place.world.certificate, **claims)


def _certified(by: Certified, algorithm: str = "ES256", **claims: Any) -> str:
    return signed(by.key, algorithm, header={"x5c": [by.der]}, **claims)


def realm(on: Place, off: Place) -> None:
    assert _asked(on) == f'Bearer realm="https://auth.example.com/token",service="registry.example.com",{_SCOPE}'
    with off.client() as client:
        assert "www-authenticate" not in client.ask("GET", "/v2/team/app/tags/list", expect=404).headers


def autoredirect(on: Place, off: Place) -> None:
    told = _asked(on, Host="registry.of.others")
    assert told == f'Bearer realm="https://registry.of.others/auth/token",service="other.example.com",{_SCOPE}'
    assert "registry.of.others" not in _asked(off, Host="registry.of.others")


def service(on: Place, off: Place) -> None:
    for place, name, another in ((on, "registry", "other"), (off, "other", "registry")):
        assert f'service="{name}.example.com"' in _asked(place)
        assert _status(place, _token(place)) == LET_IN
        assert _status(place, _token(place, aud=f"{another}.example.com")) == ASKED


def issuer(on: Place, off: Place) -> None:
    for place, another in ((on, "elsewhere.example.com"), (off, "auth.example.com")):
        assert _status(place, _token(place)) == LET_IN
        assert _status(place, _token(place, iss=another)) == ASKED


def rootcertbundle(on: Place, off: Place) -> None:
    for place, status in ((on, LET_IN), (off, ASKED)):
        given = place.config["auth"]["token"]
        token = _certified(place.world.certificate, iss=given["issuer"], aud=given["service"])
        assert _status(place, token) == status


def jwks(on: Place, off: Place) -> None:
    for place, status in ((on, LET_IN), (off, ASKED)):
        given = place.config["auth"]["token"]
        assert _status(place, signed(iss=given["issuer"], aud=given["service"])) == status


def signingalgorithms(on: Place, off: Place) -> None:
    """The same key may sign by RS256 there, and here it may not."""
    given, others = on.config["auth"]["token"], off.config["auth"]["token"]
    assert _status(on, _token(on)) == LET_IN
    by_rsa = signed(key("RSA2048"), "RS256", {"kid": "two"}, iss=given["issuer"], aud=given["service"])
    assert _status(on, by_rsa) == ASKED
    by_rsa = _certified(off.world.rsa_certificate, "RS256", iss=others["issuer"], aud=others["service"])
    assert _status(off, by_rsa) == LET_IN
