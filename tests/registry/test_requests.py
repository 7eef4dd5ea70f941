"""The access log, and faults: what the operator reads, and what the client does not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.errors import StorageError
from ocispec.reference import RepositoryName
from registry import context
from registry.api.requests import RequestMiddleware
from registry.auth.caller import Action
from registry.config.log import Log
from registry.observing.logs import AccessLog
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from tests.support.api import Api, Broken, image, serving
from tests.support.images import sha256

LINE = re.compile(
    r'time="(?P<time>\S+)" level=(?P<level>info|error) msg="response completed" '
    r'http.request.method="(?P<method>[A-Z]+)" http.request.uri="(?P<target>[^"\s]*)" '
    r"http.response.status=(?P<status>\d+) http.response.written=(?P<bytes>\d+) "
    r'http.response.duration="(?P<elapsed>[\d.]+)ms" http.request.remoteaddr="(?P<client>[^"]*)" '
    r'http.request.host="(?P<host>[^"]*)" http.request.useragent="(?P<agent>[^"]*)" '
    r'http.request.id="(?P<id>[0-9a-f]+-[0-9a-f]+)"(?P<more>.*)'
)
SECRET = "/srv/the/place/of/the/operator"
DATA = b"x" * 100_000
DIGEST = sha256(DATA)


class Faulty:
    """An engine one of whose calls fails."""

    def __init__(self, engine: Engine, call: str, error: Exception) -> None:
        self._engine = engine
        self._call = call
        self._error = error
        self.armed = False

    def __getattr__(self, name: str) -> Any:
        if not self.armed or name != self._call:
            return getattr(self._engine, name)
        if name == "append":
            return self._fail
        return self._fail_later

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise self._error

    async def _fail_later(self, *_: Any, **__: Any) -> Any:
        raise self._error


FAULTS = [
    ("open", "GET", f"blobs/{DIGEST}"),
    ("stat", "HEAD", f"blobs/{DIGEST}"),
    ("read", "GET", f"blobs/{DIGEST}"),
    ("read", "GET", "manifests/v1"),
    ("read", "HEAD", "manifests/v1"),
    ("read", "DELETE", "manifests/v1"),
    ("delete", "DELETE", "manifests/v1"),
    ("delete", "DELETE", f"blobs/{DIGEST}"),
    ("write", "PUT", "manifests/v1"),
    ("write", "POST", "blobs/uploads/"),
    ("append", "PATCH", "{upload}"),
    ("append", "PUT", f"{{upload}}?digest={sha256(b'')}"),
    ("move", "PUT", f"{{upload}}?digest={sha256(b'')}"),
    ("delete", "DELETE", "{upload}"),
    ("stat", "GET", "{upload}"),
    ("children", "GET", "tags/list"),
    ("children", "GET", f"referrers/{DIGEST}"),
    ("children", "GET", "../_catalog"),
]


@pytest.mark.parametrize("error", [StorageError(f"{SECRET}: no space left"), RuntimeError(f"{SECRET} is odd")])
@pytest.mark.parametrize(("call", "method", "path"), FAULTS)
async def test_a_fault_is_told_to_the_log_whole_and_to_the_client_as_an_id(
    call: str, method: str, path: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Faulty(MemoryEngine(), call, error)
    async with serving(engine) as api:
        await api.push_blob("image", DATA)
        await api.push_image("image", "v1")
        upload = (await api.begin("image")).removeprefix("/v2/image/")
        target = f"/v2/image/{path.format(upload=upload)}".replace("image/../", "")
        body = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
        engine.armed = True
        answer = await api.ask(method, target, body if "manifests" in path and method == "PUT" else b"")
        engine.armed = False
    assert answer.status == 500
    assert SECRET not in str(answer)
    assert "Traceback" not in str(answer)
    (fault,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert fault.exc_info
    assert SECRET in str(fault.exc_info[1])
    if method != "HEAD":
        assert answer.code == "UNKNOWN"
        request = answer.json["errors"][0]["detail"]["request"]
        assert request in answer.message
        assert request in fault.getMessage()


async def test_a_fault_in_the_midst_of_an_answer_cuts_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(FilesEngine(tmp_path)) as api:
        digest = await api.push_blob("image", DATA)

        class Closing(Api):
            async def _sent(self, message: dict[str, Any]) -> dict[str, Any]:
                if message["type"] == "http.response.body":
                    raise RuntimeError("odd")
                return dict(message)

        with pytest.raises(Broken):
            await Closing(api.app).get(f"/v2/image/blobs/{digest}")
    assert "fault during" in caplog.text


async def test_a_client_that_leaves_is_no_fault(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry")
    location = await api.begin("image")
    for method, target in (("PATCH", location), ("PUT", "/v2/image/manifests/v1")):
        with pytest.raises(Broken):
            await api.exchange(method, target, {}, {"type": "http.disconnect"})
    assert caplog.text.count("the client left during") == 2
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


async def test_every_request_is_one_line_with_status_and_bytes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    async with serving(MemoryEngine()) as api:
        await api.push_blob("image", DATA)
        await api.get(f"/v2/image/blobs/{DIGEST}?ns=docker.io")
        await api.get("/v2/image/manifests/none")
        await api.ask("HEAD", f"/v2/image/blobs/{DIGEST}")
        await api.ask("HEAD", "/v2/image/manifests/none")
    lines = [LINE.fullmatch(line) for line in _access_lines(caplog)]
    assert all(lines)
    shown = [(line["method"], line["status"], line["bytes"]) for line in lines if line]
    assert shown[:3] == [("POST", "202", "0"), ("PUT", "201", "0"), ("GET", "200", str(len(DATA)))]
    assert [line["target"] for line in lines if line][2] == f"/v2/image/blobs/{DIGEST}?ns=docker.io"
    assert shown[3][:2] == ("GET", "404")
    assert shown[4:] == [("HEAD", "200", "0"), ("HEAD", "404", "0")]
    assert len({line["id"] for line in lines if line}) == len(lines)


async def test_bytes_that_the_server_sends_itself_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    async with serving(FilesEngine(tmp_path), pathsend=True) as api:
        await api.push_blob("image", DATA)
        await api.get(f"/v2/image/blobs/{DIGEST}", Range="bytes=5-90004")
        assert api.files_sent == 1
    assert _match(caplog)["bytes"] == "90000"


@given(st.text(st.characters(max_codepoint=255), max_size=80), st.text(st.characters(max_codepoint=255), max_size=20))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_path_no_address_and_no_header_forges_a_line(
    api: Api, caplog: pytest.LogCaptureFixture, path: str, said: str
) -> None:
    caplog.set_level(logging.DEBUG, "registry")
    caplog.clear()

    class Elsewhere(Api):
        def scope(self, method: str, target: str, headers: Any) -> dict[str, Any]:
            given = super().scope(method, target, headers)
            return {**given, "client": (said, 1), "headers": [(b"user-agent", said.encode("latin-1"))]}

    await Elsewhere(api.app).get(f"/v2/{path}")
    api.app._access.flush()
    (line,) = _access_lines(caplog)
    (began, *_others) = [each.getMessage() for each in caplog.records if each.name == "registry"]
    for each in (line, began):
        assert each.isascii()
        assert each.isprintable()
    quoted = r'"(?:[^"\\]|\\.)*"'
    assert re.fullmatch(rf"(?:[\w.]+=(?:{quoted}|[^\s\"]+) ?)+", line)
    assert re.findall(rf"useragent=({quoted})", line)[-1:] == [json.dumps(said)]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("ns=docker.io&n=5", "ns=docker.io&n=5"),
        ("account=ann&password=hunter2&service=x", "account=ann&password=***&service=x"),
        ("p%61ssword=hunter2", "p%61ssword=***"),
        ("access_token=hunter2&refresh_TOKEN=hunter2", "access_token=***&refresh_TOKEN=***"),
        ("a%20b&client_secret=hunter2=hunter2&&token", "a%20b&client_secret=***&&token"),
    ],
)
async def test_what_sounds_of_a_secret_is_not_told(
    api: Api, caplog: pytest.LogCaptureFixture, query: str, shown: str
) -> None:
    caplog.set_level(logging.DEBUG, "registry")
    await api.get(f"/v2/?{query}")
    api.app._access.flush()
    assert "hunter2" not in caplog.text
    assert _match(caplog)["target"] == f"/v2/?{shown}"


async def test_the_line_of_an_error_tells_which_it_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    async with serving(MemoryEngine()) as api:
        await api.get("/v2/image/manifests/none")
        await api.get("/v2/image/tags/list")
    shown = [LINE.fullmatch(line)["more"] for line in _access_lines(caplog)]  # type: ignore[index]
    assert [each.partition(" err.message=")[0] for each in shown] == [
        ' err.code="MANIFEST_UNKNOWN"',
        ' err.code="NAME_UNKNOWN"',
    ]


async def test_the_line_names_who_asked_where_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")

    class Ann:
        name = 'ann" status=1'
        kind = "user"

        def may(self, _action: Action, _repository: RepositoryName) -> bool:
            return True

    async def known(scope: Any, _receive: Any, send: Any) -> None:
        context.set_caller(scope, Ann())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware = RequestMiddleware(known, AccessLog(Log()))
    await Api(middleware).get("/v2/")
    middleware._access.flush()
    assert _match(caplog)["more"] == r' auth.user.name="ann\" status=1"'


async def test_a_client_without_an_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "registry.access")
    async with serving(MemoryEngine()) as api:
        scope = {**api.scope("GET", "/v2/", {}), "client": None}

        async def send(_message: Any) -> None:
            await asyncio.sleep(0)

        await api.app(scope, asyncio.Event().wait, send)
    assert _match(caplog)["client"] == ""
    assert _match(caplog)["status"] == "200"


async def test_nothing_is_gathered_for_a_log_that_nobody_wants(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "registry.access")
    async with serving(MemoryEngine()) as api:
        assert (await api.get("/v2/")).status == 200
    assert _access_lines(caplog) == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/_catalog", "GET, HEAD"),
        ("DELETE", "/v2/a/tags/list", "GET, HEAD"),
        ("POST", f"/v2/a/referrers/{DIGEST}", "GET, HEAD"),
        ("POST", "/v2/a/manifests/v1", "DELETE, GET, HEAD, PUT"),
        ("PATCH", f"/v2/a/blobs/{DIGEST}", "DELETE, GET, HEAD"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("POST", "/v2/a/blobs/uploads/0", "DELETE, GET, HEAD, PATCH, PUT"),
        ("OPTIONS", "/v2/", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_supported_is_told_which_are(api: Api, method: str, path: str, allow: str) -> None:
    answer = await api.ask(method, path)
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "UNSUPPORTED", allow)


@pytest.mark.parametrize("path", ["/", "/v1/", "/v2/a", "/v2/a/b/c", "/v2/a/tags", "/v2/a/manifests/", "/docs", "/x"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_an_address_that_is_none_is_an_error_like_all_others(api: Api, method: str, path: str) -> None:
    answer = await api.ask(method, path)
    assert answer.status == 404
    assert method == "HEAD" or answer.code == "UNSUPPORTED"


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2", "/v2/_catalog", "/v2/image/tags/list", f"/v2/image/referrers/{DIGEST}"]
)
async def test_head_works_wherever_get_does(api: Api, path: str) -> None:
    await api.push_manifest("image", "v1", image(await api.push_blob("image", b"{}")))
    got, head = [await api.ask(method, path) for method in ("GET", "HEAD")]
    assert (got.status, got.headers) == (head.status, head.headers)


@pytest.mark.parametrize("name", ["UPPER", "a//b", "a/", "-a", "a..b", "a" * 256, "é", "a b", ".", "a/../b"])
async def test_a_repository_name_that_is_none_is_refused(api: Api, name: str) -> None:
    for method, path in (
        ("GET", "manifests/v1"),
        ("GET", f"blobs/{DIGEST}"),
        ("GET", "tags/list"),
        ("GET", f"referrers/{DIGEST}"),
        ("PUT", "manifests/v1"),
        ("DELETE", "manifests/v1"),
        ("POST", "blobs/uploads/"),
        ("PATCH", "blobs/uploads/00000000-0000-4000-8000-000000000000"),
    ):
        answer = await api.ask(method, f"/v2/{quote(name)}/{path}")
        assert (answer.status, answer.code) == (400, "NAME_INVALID"), path


@pytest.mark.parametrize("digest", ["sha256:ABC", "sha256:", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "x"])
async def test_a_digest_that_is_none_is_refused(api: Api, digest: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.ask(method, f"/v2/image/blobs/{digest}")
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert (await api.ask("HEAD", f"/v2/image/blobs/{digest}")).status == 400


def _access_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [each.getMessage() for each in caplog.records if each.name == "registry.access"]
    return [line for text in texts for line in text.split("\n")]


def _match(caplog: pytest.LogCaptureFixture) -> re.Match[str]:
    """The last line of the access log."""
    found = LINE.fullmatch(_access_lines(caplog)[-1])
    assert found
    return found
