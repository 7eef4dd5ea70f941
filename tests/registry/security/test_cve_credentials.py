"""Attacks on other registries, by CVE, tried here: passwords that everybody knows, and ones sent to anybody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from registry.app import create_app
from registry.auth import passwords
from registry.config import ConfigError, Settings
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.client.scripted import Reply, ScriptedRegistry, Seen, scripted
from tests.support.api import Api, serving
from tests.support.callers import basic, settings
from tests.support.images import sha256
from tests.support.source import ROOT

# CVE-2026-4404: an administrator whose password everybody knows (Harbor).

WELL_KNOWN = [
    ("admin", "Harbor12345"),
    ("admin", "admin"),
    ("admin", "password"),
    ("admin", ""),
    ("", ""),
    ("", "admin"),
    ("docker", "docker"),
    ("root", "root"),
    ("layerhouse", "layerhouse"),
    ("registry", "registry"),
    ("testuser", "testpassword"),
    ("anonymous", ""),
    ("<token>", ""),
    ("_token", ""),
]


@pytest.mark.parametrize(
    "lines", ["", "# nobody yet\n\n", "admin:\n", "admin:*\n", "admin:admin\n", "admin:{PLAIN}admin\n"]
)
async def test_cve_2026_4404_nobody_gets_in_before_somebody_was_added(
    tmp_path: Path, lines: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "COST", 4)
    (tmp_path / "htpasswd").write_text(lines)
    async with serving(MemoryEngine(), settings(tmp_path / "htpasswd")) as api:
        for number, (user, password) in enumerate(WELL_KNOWN):
            # Each from elsewhere, or they would be slowed as guesses.
            api.address = (f"192.0.2.{number}", 1)
            answer = await api.ask("GET", "/v2/_catalog", headers=basic(user, password))
            assert answer.status == 401, (user, password)


def test_cve_2026_4404_a_file_that_is_missing_is_no_open_door_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; add a user with `registry user add NAME"):
        create_app(settings(tmp_path / "missing"), MemoryEngine())
    assert list(tmp_path.iterdir()) == []


def test_cve_2026_4404_no_hash_of_a_password_is_shipped() -> None:
    shipped = [
        each for floor in ("registry", "container", "docs") for each in (ROOT / floor).rglob("*") if each.is_file()
    ]
    shipped += [ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "README.md"]
    hashed = [str(each) for each in shipped if each.suffix != ".pyc" and b":$2" in each.read_bytes()]
    assert hashed == []


# CVE-2026-33540: a mirror sent its upstream's password to whichever token server the upstream named (Distribution).

NAME, LAYER = "team/app", b"a layer"
PASSWORD = "pa55word-of-the-mirror"


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as registry:
        yield registry


@pytest.fixture
async def elsewhere() -> AsyncIterator[ScriptedRegistry]:
    """A server of somebody else's: for what is at 127.0.0.1, `localhost` is another site."""
    async with scripted() as server:
        server.host = server.host.replace("127.0.0.1", "localhost")
        yield server


@pytest.fixture
async def mirror(upstream: ScriptedRegistry, tmp_path: Path) -> AsyncIterator[Api]:
    proxy = {"remoteurl": f"http://{upstream.host}", "username": "mirror", "password": PASSWORD}
    storage = {"filesystem": {"rootdirectory": tmp_path}}
    async with serving(FilesEngine(tmp_path), Settings.model_validate({"proxy": proxy, "storage": storage})) as api:
        yield api


def wants_token(realm: str, token: str, answer: Reply) -> Callable[[Seen], Reply]:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x",scope="repository:{NAME}:pull"'}
    refused = Reply(401, headers=challenge)
    return lambda seen: answer if seen.headers.get("authorization") == f"Bearer {token}" else refused


def told(server: ScriptedRegistry) -> str:
    """Everything that somebody was told."""
    return "".join(f"{seen.target} {seen.headers} {seen.body.decode()}" for seen in server.seen)


async def test_cve_2026_33540_the_password_of_a_mirror_goes_to_no_token_server_elsewhere(
    mirror: Api, upstream: ScriptedRegistry, elsewhere: ScriptedRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    image = upstream.publish(NAME, "v1", [LAYER])
    for path, answer in list(upstream.behaviours.items()):
        assert isinstance(answer, Reply)
        upstream.behaviours[path] = wants_token(f"http://{elsewhere.host}/token", "anonymous", answer)
    elsewhere.behaviours["/token"] = Reply(200, json.dumps({"token": "anonymous"}).encode())
    pulled = await mirror.get(f"/v2/{NAME}/manifests/v1")
    assert pulled.headers["docker-content-digest"] == image.digest
    assert (await mirror.get(f"/v2/{NAME}/blobs/{sha256(LAYER)}")).body == LAYER
    assert [seen.path for seen in elsewhere.seen if seen.path == "/token"]
    assert basic("mirror", PASSWORD)["authorization"].split()[1] not in told(elsewhere)
    assert PASSWORD not in told(elsewhere) + caplog.text


async def test_cve_2026_33540_to_its_own_token_server_it_goes(mirror: Api, upstream: ScriptedRegistry) -> None:
    upstream.publish(NAME, "v1", [LAYER])
    path = f"/v2/{NAME}/manifests/v1"
    answer = upstream.behaviours[path]
    assert isinstance(answer, Reply)
    upstream.behaviours[path] = wants_token(f"http://{upstream.host}/token", "own", answer)
    upstream.behaviours["/token"] = Reply(200, json.dumps({"token": "own"}).encode())
    assert (await mirror.get(path)).status == 200
    (asked, *_) = [seen for seen in upstream.seen if seen.path == "/token"]
    assert asked.headers["authorization"] == basic("mirror", PASSWORD)["authorization"]


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_cve_2026_33540_a_redirect_takes_no_credentials_along(
    mirror: Api, upstream: ScriptedRegistry, elsewhere: ScriptedRegistry, what: str
) -> None:
    image = upstream.publish(NAME, "v1", [LAYER])
    moved = {f"/v2/{NAME}/manifests/v1"} if what == "manifest" else {f"/v2/{NAME}/blobs/{sha256(LAYER)}"}
    for path, answer in list(upstream.behaviours.items()):
        assert isinstance(answer, Reply)
        upstream.behaviours[path] = wants_password(answer)
        if path in moved:
            elsewhere.behaviours["/moved"] = answer
            upstream.behaviours[path] = wants_password(
                Reply(307, headers={"Location": f"http://{elsewhere.host}/moved"})
            )
    pulled = await mirror.get(f"/v2/{NAME}/manifests/v1")
    assert (pulled.status, pulled.headers["docker-content-digest"]) == (200, image.digest)
    assert (await mirror.get(f"/v2/{NAME}/blobs/{sha256(LAYER)}")).body == LAYER
    assert elsewhere.seen
    assert all("authorization" not in seen.headers for seen in elsewhere.seen)
    assert PASSWORD not in told(elsewhere)


def wants_password(answer: Reply) -> Callable[[Seen], Reply]:
    expected, refused = (
        basic("mirror", PASSWORD)["authorization"],
        Reply(401, headers={"WWW-Authenticate": "Basic realm=x"}),
    )
    return lambda seen: answer if seen.headers.get("authorization") == expected else refused


async def test_cve_2026_33540_what_a_client_sends_goes_no_further(mirror: Api, upstream: ScriptedRegistry) -> None:
    """Old docker engines show a mirror the password of Docker Hub (moby#42022)."""
    upstream.publish(NAME, "v1", [LAYER])
    sent: dict[str, Any] = basic("client", "of-the-client") | {
        "cookie": "session=of-the-client",
        "x-token": "of-the-client",
    }
    assert (await mirror.ask("GET", f"/v2/{NAME}/manifests/v1", headers=sent)).status == 200
    assert (await mirror.ask("GET", f"/v2/{NAME}/blobs/{sha256(LAYER)}", headers=sent)).status == 200
    assert "of-the-client" not in told(upstream)
    assert sent["authorization"] not in told(upstream)
