"""What each key does, as a client or an operator notices it: a registry that has it beside one that has not."""

from __future__ import annotations

import json
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from tests.registry.keys.places import ALICE, BOB, HIDDEN, Place
from tests.support.callers import basic
from tests.support.deployments import messages
from tests.support.host import eventually
from tests.support.images import pull_image_on, sha256

SEEN_WITHIN = 0.1  # seconds until a changed file counts, as docs/access.md promises
UPLOADS = "/v2/an/image/blobs/uploads/"


def version(on: Place, off: Place) -> None:
    assert on.ask("GET", "/v2/").status == 200
    assert f"{off.file}:" in off.refused()
    assert "version: expected '0.1'" in off.refused().replace('"', "'")


# log


def level(on: Place, off: Place) -> None:
    for each in (on, off):
        each.ask("GET", "/v2/asked/for/manifests/1")
    eventually(lambda: "/v2/asked/for/manifests/1" in off.server.text)
    assert "info" in {line["level"] for line in off.server.lines()}
    assert on.server.text == ""


def formatter(on: Place, off: Place) -> None:
    for each in (on, off):
        each.ask("GET", "/v2/")
        eventually(lambda each=each: "response completed" in each.server.text)  # type: ignore[misc]
    for line in on.server.text.splitlines():
        assert {"time", "level", "msg"} <= set(json.loads(line))
    assert all(line.startswith("time=") for line in off.server.text.splitlines())


# storage


def rootdirectory(on: Place, off: Place) -> None:
    digest = on.push("lies/somewhere")
    data = f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    assert (on.root / data).is_file()
    assert not (off.root / data).exists()


def s3(on: Place, off: Place) -> None:
    assert on.refused().endswith("storage.s3: this driver is not built yet, expected filesystem or inmemory\n")
    assert off.ask("GET", "/v2/").status == 200


def delete(on: Place, off: Place) -> None:
    for place, status in ((on, 202), (off, 405)):
        digest = place.push("may/go")
        layer = sha256(f"{place.name} may/go".encode())
        for path in ("manifests/1", f"manifests/{digest}", f"blobs/{layer}"):
            assert place.ask("DELETE", f"/v2/may/go/{path}").status == status


def redirect(on: Place, off: Place) -> None:
    """There is no object store to send clients to: either way the blob comes from here, and the log says why."""
    for place in (on, off):
        place.push("comes/from/here")
        layer = f"{place.name} comes/from/here".encode()
        answer = place.ask("GET", f"/v2/comes/from/here/blobs/{sha256(layer)}")
        assert (answer.status, answer.body) == (200, layer)
    told = ": storage.redirect.disable: is not served: blobs are served from here, never by a redirect"
    assert [each for each in messages(on.server.lines(), "info") if each.endswith(told)]
    assert told not in off.server.text


def readonly(on: Place, off: Place) -> None:
    for place, status in ((on, 405), (off, 202)):
        assert place.ask("POST", UPLOADS).status == status
    for method, path in (("PUT", "manifests/1"), ("DELETE", "manifests/1"), ("PATCH", "blobs/uploads/1")):
        answer = on.ask(method, f"/v2/an/image/{path}")
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (405, "UNSUPPORTED")
    assert on.ask("GET", "/v2/_catalog").body == b'{"repositories":[]}'


# auth


def realm(on: Place, off: Place) -> None:
    for place, name in ((on, "The Shire"), (off, "Other")):
        with place.client() as client:
            answer = client.ask("GET", "/v2/", expect=401)
        assert answer.headers["www-authenticate"] == f'Basic realm="{name}"'


def path(on: Place, off: Place) -> None:
    def statuses(place: Place, *callers: dict[str, str]) -> list[int]:
        found = []
        for headers in callers:
            with place.client(headers) as client:
                found.append(client.ask("GET", "/v2/").status)
        return found

    everybody = (ALICE, BOB, basic("alice", "guessed"), {})
    assert statuses(on, *everybody) == [200, 401, 401, 401]
    assert statuses(off, *everybody) == [401, 200, 401, 401]
    passwords = Path(on.config["auth"]["htpasswd"]["path"])
    before = passwords.read_text()
    for content, expected in ((off.world.others.read_text(), [401, 200]), (before, [200, 401])):
        passwords.write_text(content)
        time.sleep(SEEN_WITHIN)
        assert statuses(on, ALICE, BOB) == expected


# http


def addr(on: Place, off: Place) -> None:
    """Without a host, it is there by every address of this machine, as with Go; with one, by that alone."""
    ports = {place: int(place.server.host.rpartition(":")[2]) for place in (on, off)}
    with socket.socket() as made:
        assert made.connect_ex(("127.0.0.2", ports[on])) == 0
    with socket.socket() as made:
        assert made.connect_ex(("127.0.0.2", ports[off])) != 0
    if socket.has_dualstack_ipv6():
        socket.create_connection(("::1", ports[on]), 10).close()


def host(on: Place, off: Place) -> None:
    begun = on.ask("POST", UPLOADS).headers["location"]
    assert begun.startswith(f"https://registry.example.com{UPLOADS}")
    assert off.ask("POST", UPLOADS).headers["location"].startswith(f"http://{off.server.host}{UPLOADS}")


def secret(on: Place, off: Place) -> None:
    """Instances over the same folder take each other's uploads, whether they share a secret or not."""
    begun = on.ask("POST", UPLOADS).headers["location"].removeprefix("https://registry.example.com")
    with off.client(BOB) as client:
        digest = sha256(b"by two")
        assert client.ask("PUT", f"{begun}?digest={digest}", b"by two").status == 201
    assert on.ask("GET", f"/v2/an/image/blobs/{digest}").body == b"by two"
    assert HIDDEN not in on.server.text


def relativeurls(on: Place, off: Place) -> None:
    with on.client(tls=_trusting(on)) as client:
        assert client.ask("POST", UPLOADS).headers["location"].startswith(UPLOADS)
    assert off.ask("POST", UPLOADS).headers["location"].startswith(f"http://{off.server.host}{UPLOADS}")


def headers(on: Place, off: Place) -> None:
    for path, status in (("/v2/", 200), ("/v2/an/image/manifests/no", 404), ("/v2/an/image/blobs/no", 400)):
        has, lacks = on.ask("GET", path), off.ask("GET", path)
        assert (has.status, lacks.status) == (status, status)
        assert (has.headers["x-frame-options"], has.headers["x-one"]) == ("DENY", "a")
        assert not {"x-frame-options", "x-one"} & set(lacks.headers)


def _trusting(place: Place) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(place.world.authority.certificate))


def certificate(on: Place, off: Place) -> None:
    with on.client(tls=_trusting(on)) as client:
        assert client.ask("GET", "/v2/").status == 200
    with on.client() as client:
        assert client.ask("GET", "/v2/").body == b"Client sent an HTTP request to an HTTPS server.\n"
    assert f"listening on https://{on.server.host}" in on.server.text
    assert off.refused().endswith("http.tls: expected certificate and key, got key without certificate\n")


def private_key(on: Place, off: Place) -> None:
    shown = ssl.get_server_certificate(("127.0.0.1", int(on.server.host.rpartition(":")[2])))
    assert shown.strip() in (on.world.folder / "server.crt").read_text()
    assert off.refused().endswith("http.tls: expected certificate and key, got certificate without key\n")


def debug_addr(on: Place, off: Place) -> None:
    answer = on.debug("/debug/health")
    assert (answer.status, answer.body) == (200, b"{}")
    assert f"debug server on http://{on.config['http']['debug']['addr']}" in on.server.text
    assert off.ask("GET", "/debug/health").status == 404
    assert "debug server" not in off.server.text


def prometheus(on: Place, off: Place) -> None:
    on.ask("GET", "/v2/")
    answer = on.debug("/metrics")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert b"registry_http_requests_total{" in answer.body
    assert off.debug("/metrics").status == 404


# notifications


def _told(place: Place, of: str) -> list[Any]:
    """The requests that tell of a push that is made now, those of this place alone."""
    receiver, place_of = place.world.receiver, place.config["http"]["addr"].rpartition(":")[2]
    digest = place.push(of)

    def ours() -> list[Any]:
        came = [each for each in receiver.came if each.event["source"]["addr"].endswith(f":{place_of}")]
        return [each for each in came if each.event["target"]["digest"] == digest]

    receiver.wait(lambda _: bool(ours()))
    return ours()


def name(on: Place, off: Place) -> None:
    """By its name an operator finds an endpoint again, in the metrics and in `registry notifications`."""
    _told(on, "is/told")
    assert b'registry_notifications_events_total{endpoint="audit",type="Successes"}' in on.debug("/metrics").body
    assert [line.split()[0] for line in on.command("notifications").splitlines()] == ["ENDPOINT", "audit"]
    assert [line.split()[0] for line in off.command("notifications").splitlines()] == ["ENDPOINT", "other"]


def url(on: Place, off: Place) -> None:
    assert {each.path for each in _told(on, "is/told/where")} == {"/events/audit"}
    assert {each.path for each in _told(off, "is/told/elsewhere")} == {"/events/other"}


def endpoint_headers(on: Place, off: Place) -> None:
    assert {each.headers["authorization"] for each in _told(on, "is/told/more")} == {HIDDEN}
    assert not any("authorization" in each.headers for each in _told(off, "is/told/less"))
    assert HIDDEN not in on.server.text


# proxy


def _pulled(place: Place, repository: str) -> str:
    with place.client() as client:
        return next(iter(pull_image_on(client, repository, "1")))


def remoteurl(on: Place, off: Place) -> None:
    upstream = on.world["plain"]
    digest = upstream.push("from/upstream")
    assert _pulled(on, "from/upstream") == digest
    assert on.ask("POST", UPLOADS).status == 405
    assert off.ask("GET", "/v2/from/upstream/manifests/1").status == 404
    assert off.ask("POST", UPLOADS).status == 202


def credentials(on: Place, off: Place) -> None:
    """Upstream wants a login: what is asked of it with a wrong one is not there, and the client is asked for none."""
    digest = on.world["full"].push("for/alice")
    assert _pulled(on, "for/alice") == digest
    assert off.ask("GET", "/v2/for/alice/manifests/1").status == 404
    assert off.config["proxy"]["password"] not in off.server.text


def ttl(on: Place, off: Place) -> None:
    for place, upstream in ((off, "plain"), (on, "full")):
        digest = place.world[upstream].push("for/a/second")
        assert _pulled(place, "for/a/second") == digest
    link = "docker/registry/v2/repositories/for/a/second/_manifests/tags/1"
    eventually(lambda: not (on.root / link).exists())
    assert (off.root / link).is_dir()
    assert _pulled(on, "for/a/second")


# health


def storagedriver(on: Place, off: Place) -> None:
    """Where storage cannot be written to, a registry that looks says so to all who ask; another one finds out late."""
    for place, status in ((on, 503), (off, 200)):
        tls = _trusting(place) if "tls" in place.config["http"] else None
        with place.client(tls=tls) as client:
            client.ask("GET", "/v2/", expect=200)
            away = place.root.rename(place.root.with_name("away"))
            place.root.write_text("no folder")
            try:
                eventually(lambda: client.ask("GET", "/v2/").status == status)  # noqa: B023 - called at once
            finally:
                place.root.unlink()
                away.rename(place.root)
            eventually(lambda: client.ask("GET", "/v2/").status == 200)
    assert any(
        each.startswith("health: storagedriver_filesystem fails:") for each in messages(on.server.lines(), "error")
    )
