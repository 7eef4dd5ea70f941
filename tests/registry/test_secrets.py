"""No secret is ever in a log: neither in the audit log, the metrics, an error or the printed configuration."""

from __future__ import annotations

import http.client
import json
import subprocess
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.support.api import image
from tests.support.callers import basic, htpasswd
from tests.support.host import WAIT, eventually
from tests.support.images import sha256
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program
from tests.support.receiver import Receiver

# Each with what a query or base64 would write otherwise.
RIGHT = "right/horse+battery"
WRONG = "wrong/guess+staple"
GIVEN = {
    "forged": "eyJmb3JnZWQ/token+forged",
    "refresh": "lhr_refresh-Token-of-nobody",
    "query": "lh_typed-into-the-query",
    "secret": "http-secret?of/this",
    "header": "Bearer notification/header+value",
    "health": "health/check+header",
}
CONFIG = """\
version: 0.1
log: {{level: debug}}
storage: {{filesystem: {{}}, delete: {{enabled: true}}}}
auth: {{htpasswd: {{realm: The Shire, path: {passwords}}}}}
http:
  secret: {secret}
  debug: {{addr: "127.0.0.1:0", prometheus: {{enabled: true}}}}
notifications:
  endpoints: [{{name: ears, url: "{ears}", headers: {{Authorization: ["{header}"]}}, threshold: 1, backoff: 1s}}]
health:
  http: [{{uri: "{ears}", headers: {{X-Secret: ["{health}"]}}, interval: 1s, threshold: 1000}}]
layerhouse:
  tokens: {{enabled: true}}
  audit:
    file: {audit}
    actions: [pull, push, delete, mount, login, token, refused, administration]
"""
MIRROR = """\
version: 0.1
log: {{level: debug}}
storage: {{filesystem: {{}}}}
proxy: {{remoteurl: "{upstream}", username: alice, password: {right}}}
"""


class Talk:
    """What is said to a registry, and all that it answers."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.said: list[str] = []
        self.statuses: list[int] = []

    def ask(self, method: str, target: str, headers: Any = None, body: bytes = b"") -> tuple[int, bytes]:
        """One request; what an error says, in headers and body, is kept."""
        connection = http.client.HTTPConnection(self.host, timeout=WAIT)
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.statuses.append(answer.status)
        if answer.status >= 400:
            self.said.append(f"{answer.headers}{content.decode()}")
        return answer.status, content


@pytest.fixture
def ears() -> Iterator[Receiver]:
    """Takes no notification, so that each is told of."""
    found = Receiver(lambda _: 500)
    yield found
    found.stop()


@pytest.fixture
def config(tmp_path: Path, ears: Receiver) -> Path:
    path, passwords = tmp_path / "config.yml", htpasswd(tmp_path / "htpasswd", alice=RIGHT)
    keys = {"passwords": passwords, "audit": tmp_path / "audit.log", "ears": ears.url}
    path.write_text(CONFIG.format(**keys, **GIVEN))
    return path


def push(talk: Talk, alice: Any) -> None:
    assert talk.ask("POST", f"/v2/a/blobs/uploads/?digest={sha256(b'{}')}", alice, b"{}")[0] == 201
    manifest = json.dumps(image(sha256(b"{}"))).encode()
    assert talk.ask("PUT", "/v2/a/manifests/1", alice, manifest)[0] == 201


def log_in(talk: Talk, alice: Any) -> list[str]:
    """Logs in in every way, right and wrong; returns the tokens that were given out."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for header in (basic("alice", WRONG), basic(GIVEN["refresh"], ""), {"authorization": f"Bearer {GIVEN['forged']}"}):
        assert talk.ask("GET", "/v2/", header)[0] == 401
    assert talk.ask("GET", "/v2/", {"authorization": f"Basic {RIGHT}"})[0] == 401
    asked = {"service": "layerhouse", "scope": "repository:a:pull", "offline_token": "true", "client_id": "test"}
    status, content = talk.ask("GET", f"/auth/token?{urlencode(asked)}", alice)
    assert status == 200
    given = json.loads(content)
    tokens = [given["token"], given["refresh_token"]]
    password = {"grant_type": "password", "username": "alice", "service": "layerhouse"}
    for word, expected in ((RIGHT, 200), (WRONG, 401)):
        body = urlencode({**password, "password": word}).encode()
        status, content = talk.ask("POST", "/auth/token", form, body)
        assert status == expected
        tokens += [json.loads(content)["token"]] if status == 200 else []
    for word, expected in ((given["refresh_token"], 200), (GIVEN["refresh"], 401)):
        body = urlencode({"grant_type": "refresh_token", "refresh_token": word, "service": "layerhouse"}).encode()
        assert talk.ask("POST", "/auth/token", form, body)[0] == expected
    assert (
        talk.ask("POST", "/auth/token", form, urlencode({"grant_type": "other", "password": RIGHT}).encode())[0] == 400
    )
    assert talk.ask("GET", "/v2/a/manifests/1", {"authorization": f"Bearer {given['token']}"})[0] == 200
    assert talk.ask("PUT", "/v2/a/manifests/2", {"authorization": f"Bearer {given['token']}"}, b"{}")[0] == 401
    return tokens


def err(talk: Talk, root: Path, alice: Any) -> None:
    """Asks in wrong ways, with secrets in the query, and into a fault of the registry's own."""
    query = urlencode({"password": RIGHT, "access_token": GIVEN["query"], "account": "alice"})
    assert talk.ask("GET", f"/v2/a/manifests/none?{query}", alice)[0] == 404
    assert talk.ask("GET", f"/auth/token?{query}&service=layerhouse", basic("alice", WRONG))[0] == 401
    assert talk.ask("GET", f"/v2/A/manifests/none?{query}", alice)[0] == 400
    (root / "docker/registry/v2/repositories/broken").write_text("where a folder should be")
    assert talk.ask("POST", f"/v2/broken/blobs/uploads/?{query}", alice)[0] == 500
    assert talk.ask("DELETE", f"/v2/a/manifests/1?{query}", alice)[0] == 202


def written(secret: str) -> set[str]:
    """What a secret may look like."""
    texts = [secret.encode(), f"alice:{secret}".encode(), f"{secret}:".encode()]
    coded = {encode(text).decode().rstrip("=") for text in texts for encode in (b64encode, urlsafe_b64encode)}
    return {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], *coded}


def held(told: dict[str, str], secrets: list[str]) -> list[tuple[str, str]]:
    """Where which secret is found."""
    forms = {each: secret for secret in secrets for each in written(secret)}
    return [(name, secret) for name, text in told.items() for each, secret in forms.items() if each in text]


def shown(config: Path, *words: str) -> str:
    done = subprocess.run(
        [*program("registry"), *words, str(config)], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def test_no_secret_is_ever_in_a_log(
    config: Path, ears: Receiver, registry_server: Callable[..., RegistryProcess], tmp_path: Path
) -> None:
    server, alice = registry_server(args=[str(config)], covered=False), basic("alice", RIGHT)
    talk = Talk(server.host)
    push(talk, alice)
    tokens = log_in(talk, alice)
    err(talk, server.root, alice)
    eventually(lambda: bool(ears.came))
    whole = Path(server.__dict__["_log"])
    debug = Talk(whole.read_text().partition("debug server on http://")[2].split()[0].strip('"'))
    metrics = [debug.ask("GET", path)[1].decode() for path in ("/metrics", "/debug/health")]
    audit = tmp_path / "audit.log"
    eventually(lambda: '"delete"' in audit.read_text())
    server.stop()
    told = {
        "log": whole.read_text(),
        "audit": audit.read_text(),
        "metrics": "".join(metrics),
        "errors": "".join(talk.said),
        **{" ".join(words): shown(config, *words) for words in (("config",), ("config", "--json"), ("check-config",))},
    }
    # The secrets were there to be told, and what was done was told.
    assert all(told.values())
    assert "fault during" in told["log"]
    assert "debug" in told["log"]
    hashed = (tmp_path / "htpasswd").read_text().strip().partition(":")[2]
    assert held(told, [RIGHT, WRONG, hashed, *GIVEN.values(), *tokens]) == []
    assert {secret for _, secret in held({"config": config.read_text()}, list(GIVEN.values()))} == {
        GIVEN[name] for name in ("secret", "header", "health")
    }


def test_a_mirror_tells_nobody_by_which_password_it_asks(
    tmp_path: Path, registry_server: Callable[..., RegistryProcess]
) -> None:
    upstream, mirroring = tmp_path / "upstream.yml", tmp_path / "mirror.yml"
    passwords = htpasswd(tmp_path / "htpasswd", alice=RIGHT)
    upstream.write_text(f"version: 0.1\nstorage: {{filesystem: {{}}}}\nauth: {{htpasswd: {{path: {passwords}}}}}\n")
    hosting = registry_server(args=[str(upstream)], covered=False)
    push(Talk(hosting.host), basic("alice", RIGHT))
    mirroring.write_text(MIRROR.format(upstream=hosting.url, right=RIGHT))
    mirror = registry_server(args=[str(mirroring)], covered=False)
    talk = Talk(mirror.host)
    assert talk.ask("GET", "/v2/a/manifests/1")[0] == 200
    assert talk.ask("GET", "/v2/b/manifests/1")[0] == 404
    passwords.write_text("")
    assert talk.ask("GET", f"/v2/a/blobs/{sha256(b'x')}")[0] >= 400
    mirror.stop()
    told = {
        "log": Path(mirror.__dict__["_log"]).read_text(),
        "errors": "".join(talk.said),
        "config": shown(mirroring, "config"),
    }
    assert held(told, [RIGHT]) == []
