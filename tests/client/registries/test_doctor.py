"""Doctor: each step says what works, what does not, and what to do; nothing of a secret is shown."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from threading import Thread

import pytest

from client.hosts.endpoint import Route, Tls
from client.hosts.hosts import Folders, Hosts
from client.registries.doctor import examine
from client.registries.findings import Finding, State, of_clock, of_limit, of_proxy, of_tls, tls_remedy
from client.registries.probing import Certificate, Greeting
from client.session import Session
from ocispec.reference import Reference
from tests.client.helpers import Machine
from tests.client.scripted import Reply, ScriptedRegistry, scripted, serving
from tests.support.authority import Authority
from tests.support.processes import RegistryProcess, pullclient

DAY = 24 * 3600.0
NOW = 1_800_000_000.0
SHOWN = Certificate(("a.example",), "CA", NOW + 90 * DAY)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    async with scripted() as server:
        server.behaviours["/v2/"] = Reply(200, b"{}", {"Docker-Distribution-Api-Version": "registry/2.0"})
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.make("server", "server")
    return made


@contextmanager
def strict(context: ssl.SSLContext) -> Iterator[int]:
    """A server that ends a handshake it does not like with an alert; asyncio's just hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connected, _ = listening.accept()
                    with connected, suppress(OSError):
                        context.wrap_socket(connected, server_side=True).close()

        serving_thread = Thread(target=serve)
        serving_thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        serving_thread.join()


async def examined(
    machine: Machine, host: str, image: str | None = None, *, environ: dict[str, str] | None = None, **options
) -> dict[str, Finding]:
    """Findings by step, the last of each."""
    settings = machine.environ(**(environ or {}))
    folders = Folders(Path(settings["XDG_CONFIG_HOME"]), machine.root / "etc")
    hosts = Hosts(environ=settings, folders=folders, **options)
    credentials = machine.credentials()
    async with Session(hosts=hosts, credentials=credentials) as session:
        reference = Reference.parse(image) if image else None
        found = [each async for each in examine(session, host, reference, credentials)]
    return {each.step: each for each in found}


def states(found: dict[str, Finding]) -> dict[str, str]:
    return {step: str(each.state) for step, each in found.items()}


async def test_a_host_that_is_well_is_ok_from_floor_to_floor(registry: ScriptedRegistry, machine: Machine):
    found = await examined(machine, registry.host)
    assert states(found) == {
        "mirrors": "ok", "proxy": "ok", "dns": "skipped", "tcp": "ok", "tls": "skipped", "api": "ok", "login": "ok",
        "rate limit": "skipped", "clock": "skipped",
    }  # fmt: skip
    assert found["api"].text == f"http://{registry.host}/v2/ answers 200, registry/2.0"


async def test_an_image_shows_whether_ranges_are_served(registry: ScriptedRegistry, machine: Machine):
    registry.publish_index("a/b", "1", {"amd64": [b"layer" * 1000]})
    found = await examined(machine, registry.host, f"{registry.host}/a/b:1")
    assert found["image"].text.startswith(f"{registry.host}/a/b:1 is sha256:")
    assert found["ranges"].state is State.WARNING
    assert found["ranges"].text.startswith(f"{registry.host} serves none: ")
    for path in [each for each in registry.behaviours if "/blobs/" in each]:
        size = len(registry.behaviours[path].body)
        registry.behaviours[path] = Reply(206, b"l", {"Content-Range": f"bytes 0-0/{size}"})
    assert (await examined(machine, registry.host, f"{registry.host}/a/b:1"))["ranges"].state is State.OK
    for path in [each for each in registry.behaviours if "/blobs/" in each]:
        registry.behaviours[path] = Reply(403)
    found = await examined(machine, registry.host, f"{registry.host}/a/b:1")
    assert (found["image"].state, found["ranges"].state) == (State.OK, State.FAILED)


async def test_an_image_without_bytes_or_that_is_missing_is_said(registry: ScriptedRegistry, machine: Machine):
    index = {"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    registry.manifest("a/b", "empty", index)
    assert (await examined(machine, registry.host, f"{registry.host}/a/b:empty"))["ranges"].state is State.SKIPPED
    found = (await examined(machine, registry.host, f"{registry.host}/a/b:none"))["image"]
    assert (found.state, found.text) == (
        State.FAILED, f"{registry.host}/a/b:none: manifest unknown (status 404)",
    )  # fmt: skip


async def test_a_port_where_nobody_listens_and_a_name_that_is_none(machine: Machine):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    found = await examined(machine, f"127.0.0.1:{port}")
    assert found["tcp"].text == f"port {port}: 127.0.0.1 connection refused"
    assert "api" not in found
    found = await examined(machine, "nginx.invalid")
    assert found["dns"].state is State.FAILED
    assert "tcp" not in found
    assert "docker.io/library/localhost" not in found["dns"].advice


async def test_a_host_that_is_no_registry_is_said(registry: ScriptedRegistry, machine: Machine):
    registry.behaviours["/v2/"] = Reply(404)
    found = await examined(machine, registry.host)
    assert found["api"].text == f"http://{registry.host}/v2/ answers 404, no registry does"
    assert "login" not in found


async def test_mirrors_are_asked_whether_they_are_there(registry: ScriptedRegistry, machine: Machine):
    async with scripted() as mirror:
        mirror.behaviours["/v2/"] = Reply(200)
        good = f"http://{mirror.host}"
        found = (await examined(machine, registry.host, mirrors=(good,)))["mirrors"]
        assert (found.state, found.text) == (State.OK, f"{good}/v2 answers 200")
        found = (await examined(machine, registry.host, mirrors=(good, "http://127.0.0.1:1")))["mirrors"]
        assert found.state is State.WARNING
        assert "127.0.0.1:1 cannot be reached" in found.text
        mirror.behaviours["/v2/"] = Reply(500)
        assert (await examined(machine, registry.host, mirrors=(good,)))["mirrors"].state is State.WARNING


async def test_a_setting_that_is_wrong_ends_it(machine: Machine):
    assert states(await examined(machine, "a.example", mirrors=("ftp://x",))) == {"settings": "failed"}
    found = await examined(machine, "a.example", environ={"HTTPS_PROXY": "socks5://u:secret@x"})
    assert found["proxy"].state is State.FAILED
    assert "secret" not in str(found)


class TestTls:
    async def test_a_certificate_that_nobody_knows_is_shown_and_where_its_authority_goes(
        self, authority: Authority, machine: Machine
    ):
        folder = machine.root / "etc/docker/certs.d"
        async with scripted(authority.server()) as registry:
            host = registry.host.replace("127.0.0.1", "localhost")
            registry.behaviours["/v2/"] = Reply(200)
            (folder / host).mkdir(parents=True)
            stranger = Authority(machine.root, "stranger")
            (folder / host / "ca.crt").write_bytes(stranger.certificate.read_bytes())
            found = (await examined(machine, host))["tls"]
            assert found.state is State.FAILED
            assert "certificate for localhost, registry.example.com, 127.0.0.1 by ca, until" in found.text
            assert found.advice.startswith(f"put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt")
            (folder / host / "ca.crt").write_bytes(authority.certificate.read_bytes())
            found = await examined(machine, host)
            assert found["tls"].state is State.OK
            assert f"trusted by {folder / host / 'ca.crt'} or the system" in found["tls"].text
            assert found["api"].state is State.OK
            found = (await examined(machine, host, insecure=True))["tls"]
            assert (found.state, found.text[:7]) == (State.WARNING, "TLSv1.3")
            assert "not checked: certificate for localhost" in found.text

    async def test_a_certificate_of_its_own_that_cannot_be_read_leaves_the_reason(
        self, machine: Machine, authority: Authority
    ):
        async with scripted(authority.server()) as registry:
            host = registry.host.replace("127.0.0.1", "localhost")
            folder = machine.root / "etc/docker/certs.d" / host
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_text("none")
            found = (await examined(machine, host))["tls"]
        assert (found.state, found.advice) == (State.FAILED, "correct it")

    async def test_a_host_that_speaks_no_tls_is_asked_by_http_where_that_is_taken(
        self, registry: ScriptedRegistry, machine: Machine
    ):
        host = registry.host.replace("127.0.0.1", "localhost")
        found = await examined(machine, host, insecure=True)
        assert found["settings"].text == f"going on with http://{host}/v2"
        assert found["api"].state is State.OK
        assert State.FAILED not in {each.state for each in found.values()}

    async def test_a_host_that_wants_a_certificate_of_the_client_is_said(self, machine: Machine, authority: Authority):
        with strict(authority.server(asks=True)) as port:
            host = f"localhost:{port}"
            folder = machine.root / "etc/docker/certs.d" / host
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
            found = await examined(machine, host)
        assert found["tls"].state is State.FAILED
        assert found["tls"].advice == (
            f"put a client's certificate and key into /etc/docker/certs.d/{host}/client.cert and client.key"
        )

    async def test_one_of_several_addresses_that_does_not_answer_is_a_warning(
        self, registry: ScriptedRegistry, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("client.registries.probing.addresses", lambda *_: ["127.0.0.2", "127.0.0.1"])
        found = (await examined(machine, registry.host))["tcp"]
        assert (found.state, found.text.partition(", ")[2]) == (
            State.WARNING,
            "but not at 127.0.0.2 connection refused",
        )

    async def test_a_host_that_hangs_up_is_said(self, machine: Machine):
        async def hang_up(_reader, writer):
            writer.transport.abort()

        async with serving(hang_up) as port:
            found = await examined(machine, f"localhost:{port}", insecure=True)
        assert found["api"].state is State.FAILED

    @pytest.mark.parametrize(
        ("greeting", "state", "text", "advice"),
        [
            (Greeting("TLSv1.3", SHOWN), "ok", "certificate for a.example by CA, until 2027-04-15 (90 days)", ""),
            (Greeting("TLSv1.2", Certificate((), "CA", NOW + DAY)), "warning", "for no name by CA, until", "ends soon"),
            (Greeting("TLSv1.2", None), "ok", "TLSv1.2, its certificate, trusted by the system", ""),
            (
                Greeting("", Certificate(("a", "b", "c", "d"), "CA", NOW - 2 * DAY), "certificate has expired", 10),
                "failed", "has expired: certificate for a, b, c and 1 more by CA, ended 2027-01-13 (2 days ago)",
                "has to renew it",
            ),
            (Greeting("", SHOWN, "Hostname mismatch", 62), "failed", "Hostname mismatch", "use a name that"),
            (Greeting("", None, "self-signed certificate", 18), "failed", "self-signed", "certs.d/h/ca.crt"),
        ],
    )  # fmt: skip
    def test_what_a_certificate_is(self, greeting: Greeting, state: str, text: str, advice: str):
        found = of_tls("h", Route(), greeting, NOW)
        assert found.state == state
        assert text in found.text
        assert advice in found.advice

    async def test_a_certificate_that_hides_is_no_matter(self, machine: Machine, authority: Authority):
        async def hang_up(_reader, writer):
            writer.transport.abort()

        async with serving(hang_up, authority.server()) as port:
            folder = machine.root / f"etc/docker/certs.d/localhost:{port}"
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
            found = await examined(machine, f"localhost:{port}")
        assert states(found)["tls"] == "ok"
        assert states(found)["api"] == "failed"

    @pytest.mark.parametrize(
        ("reason", "advice"),
        [("wrong version number", "try --plain-http"), ("unsupported protocol", "whoever runs the host")],
    )
    def test_what_to_do_without_tls(self, reason: str, advice: str):
        assert advice in tls_remedy("h", reason)

    def test_a_certificate_without_other_names_or_its_own_issuer(self):
        name = ((("commonName", "x"),),)
        assert Certificate.of({"subject": name, "issuer": name}) == Certificate(("x",), "itself", None)
        assert Certificate.of({}) == Certificate((), "nobody", None)


class TestLogins:
    def bearer(self, registry: ScriptedRegistry, token: Reply) -> None:
        def answer(request):
            if request.headers.get("authorization") == "Bearer good":
                return Reply(200)
            challenge = f'Bearer realm="http://{registry.host}/token",service="s"'
            return Reply(401, headers={"WWW-Authenticate": challenge})

        registry.behaviours["/v2/"], registry.behaviours["/token"] = answer, token

    async def test_a_token_for_anybody(self, registry: ScriptedRegistry, machine: Machine):
        self.bearer(registry, Reply(200, b'{"token":"good"}'))
        found = await examined(machine, registry.host)
        assert found["login"].text == f"by a token from {registry.host} (Bearer)"
        assert (found["anonymous"].state, found["anonymous"].text) == (State.OK, "anybody is let in")
        assert "credentials" not in found

    async def test_no_token_for_nobody_and_what_to_do(self, registry: ScriptedRegistry, machine: Machine):
        self.bearer(registry, Reply(401))
        found = (await examined(machine, registry.host))["anonymous"]
        assert found.state is State.FAILED
        assert f"pullclient login {registry.host}" in found.text + found.advice

    @pytest.mark.parametrize("right", [True, False])
    async def test_credentials_and_where_they_came_from(
        self, registry: ScriptedRegistry, machine: Machine, right: bool
    ):
        def token(request):
            known = "authorization" in request.headers and right
            return Reply(200, b'{"token":"good"}') if known else Reply(401)

        self.bearer(registry, token)
        machine.docker({"auths": {registry.host: {"username": "alice", "password": "p:w-secret"}}})
        found = await examined(machine, registry.host)
        assert "anonymous" not in found
        assert found["credentials"].state is (State.OK if right else State.FAILED)
        assert f"alice from {machine.docker_file}" in found["credentials"].text
        assert "p:w-secret" not in json.dumps([each.to_json() for each in found.values()])

    async def test_credentials_beside_what_anybody_may(self, registry: ScriptedRegistry, machine: Machine):
        self.bearer(registry, Reply(200, b'{"token":"good"}'))
        machine.docker({"auths": {registry.host: {"username": "alice", "password": "x"}}})
        found = await examined(machine, registry.host, f"{registry.host}/a/b:1")
        assert (found["anonymous"].state, found["credentials"].state) == (State.OK, State.OK)
        assert "repository:a/b:pull" in [each.query.get("scope") for each in registry.seen]

    async def test_a_token_that_is_given_and_refused(self, registry: ScriptedRegistry, machine: Machine):
        self.bearer(registry, Reply(200, b'{"token":"other"}'))
        found = (await examined(machine, registry.host))["anonymous"]
        assert (found.state, found.text) == (State.WARNING, "anybody is given a token, and /v2/ refuses it")

    async def test_who_is_known_and_still_forbidden(self, registry: ScriptedRegistry, machine: Machine):
        def answer(request):
            if "authorization" in request.headers:
                return Reply(403)
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

        registry.behaviours["/v2/"] = answer
        machine.docker({"auths": {registry.host: {"username": "alice", "password": "x"}}})
        found = (await examined(machine, registry.host))["credentials"]
        assert (found.state, found.text) == (State.FAILED, f"alice from {machine.docker_file} gets status 403")

    async def test_a_password_that_nobody_has_told(self, registry: ScriptedRegistry, machine: Machine):
        registry.behaviours["/v2/"] = Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        found = await examined(machine, registry.host)
        assert found["login"].text == "by name and password (Basic)"
        assert found["anonymous"].state is State.FAILED
        assert found["anonymous"].text.endswith(f"pullclient login {registry.host}")

    async def test_a_login_of_another_kind_or_none_that_can_be_read(self, registry: ScriptedRegistry, machine: Machine):
        for headers in ({"WWW-Authenticate": "NTLM"}, {}):
            registry.behaviours["/v2/"] = Reply(401, headers=headers)
            assert (await examined(machine, registry.host))["login"].state is State.FAILED

    async def test_a_file_of_credentials_that_is_broken(self, registry: ScriptedRegistry, machine: Machine):
        self.bearer(registry, Reply(401))
        machine.docker_file.write_text("{")
        found = (await examined(machine, registry.host))["login"]
        assert found.state is State.FAILED
        assert str(machine.docker_file) in found.text


class TestLimits:
    async def test_docker_hubs_is_asked_for_with_a_head(self, registry: ScriptedRegistry, machine: Machine):
        folder = machine.root / "etc/containers"
        folder.mkdir(parents=True)
        hub = f'[[registry]]\nprefix = "docker.io"\nlocation = "{registry.host}"\n'
        (folder / "registries.conf").write_text(hub)
        told = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
        registry.behaviours["/v2/ratelimitpreview/test/manifests/latest"] = Reply(200, b"", told)
        found = (await examined(machine, "docker.io"))["rate limit"]
        assert (found.state, found.text) == (State.OK, "76 of 100 requests left in 6 h")
        assert registry.paths("HEAD") == ["/v2/ratelimitpreview/test/manifests/latest"]
        registry.behaviours["/v2/ratelimitpreview/test/manifests/latest"] = Reply(401)
        assert (await examined(machine, "docker.io"))["rate limit"].state is State.SKIPPED
        challenge = {"WWW-Authenticate": 'Basic realm="x"'}
        registry.behaviours["/v2/ratelimitpreview/test/manifests/latest"] = Reply(401, headers=challenge)
        assert (await examined(machine, "docker.io"))["rate limit"].state is State.WARNING

    @pytest.mark.parametrize(
        ("headers", "state", "text"),
        [
            ({"X-RateLimit-Remaining": "5"}, "ok", "5 requests left"),
            (
                {"ratelimit-limit": "100;w=60", "ratelimit-remaining": "0;w=60"},
                "failed",
                "0 of 100 requests left in 0.0",
            ),
            ({"ratelimit-remaining": "many"}, "skipped", "h does not tell"),
            ({}, "skipped", "h does not tell"),
        ],
    )
    def test_what_headers_tell(self, headers: dict[str, str], state: str, text: str):
        found = of_limit("h", headers)
        assert found.state == state
        assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("offset", "state", "text"),
    [
        (0, "ok", "agree within a minute"),
        (-300, "warning", "300 s ahead of"),
        (300, "warning", "300 s behind"),
    ],
)
def test_clocks(offset: int, state: str, text: str):
    found = of_clock(formatdate(NOW + offset, usegmt=True), NOW)
    assert found.state == state
    assert text in found.text


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_a_host_without_a_clock(date: str):
    assert of_clock(date, NOW).state is State.SKIPPED


class TestProxies:
    async def test_the_host_is_the_proxys_to_find(self, registry: ScriptedRegistry, machine: Machine):
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()

        async with serving(answer) as port:
            proxy = f"http://user:secret@127.0.0.1:{port}"
            found = await examined(machine, "a.example", environ={"HTTP_PROXY": proxy}, plain_http=True)
        assert found["proxy"].text == f"http://127.0.0.1:{port} with a login"
        assert (found["tls"].state, found["api"].state) == (State.SKIPPED, State.OK)
        assert "secret" not in str(found)

    def test_what_is_said_of_one(self):
        assert of_proxy(Route(Tls(), "http://p:1")).text == "http://p:1"


def test_the_command_prints_a_line_a_step_and_ends_with_1_where_something_failed(registry_server, tmp_path: Path):
    server: RegistryProcess = registry_server()
    lines = pullclient("doctor", server.host).splitlines()
    assert [each.split()[1] for each in lines][:5] == ["mirrors", "proxy", "dns", "tcp", "tls"]
    assert json.loads(pullclient("doctor", "--json", server.host))[0]["step"] == "mirrors"
    with pytest.raises(RuntimeError, match=r"ended with 1\n(.*\n)*failed +image .* -> is the name right"):
        pullclient("doctor", f"{server.host}/no/such:1")
