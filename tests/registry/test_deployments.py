"""Registries as people have them: files taken as they are, addresses and folders given by variables, used as meant."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import basic, htpasswd
from tests.support.deployments import FILES, Client, Deployments, complaints, deploying, free_port
from tests.support.host import eventually
from tests.support.images import INDEX, MANIFEST, pull_image, pull_image_on, push_image, push_image_on, sha256
from tests.support.receiver import Receiver, receiving

deploy, receiver = pytest.fixture(deploying), pytest.fixture(receiving)


def status(host: str, method: str, path: str, **headers: str) -> int:
    with Client(host) as client:
        return client.ask(method, path, **headers).status


def test_the_file_of_the_image_registry_2_and_then_a_read_only_one(deploy: Deployments, tmp_path: Path) -> None:
    server = deploy("image-v2")
    digest = push_image(server.host, "an/image", "1", [b"layer"])
    assert digest in pull_image(server.host, "an/image", "1")
    assert (tmp_path / "root/docker/registry/v2/repositories/an/image/_manifests/tags/1/current/link").is_file()
    assert status(server.host, "DELETE", f"/v2/an/image/manifests/{digest}") == 405
    with Client(server.host) as client:
        assert client.ask("GET", "/v2/").headers["x-content-type-options"] == "nosniff"
    # As docker does first, which is nothing to be warned of.
    with pytest.raises(ssl.SSLError), Client(server.host, tls=ssl.create_default_context()):
        pass
    assert complaints(server) == []
    assert {line["service"] for line in server.lines()} == {"registry"}
    server.stop()
    closed = deploy("read-only")
    assert digest in pull_image(closed.host, "an/image", "1")
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/2"), ("DELETE", "manifests/1")):
        assert status(closed.host, method, f"/v2/an/image/{path}") == 405
    assert closed.text == ""


def test_the_file_of_the_image_registry_3_that_a_variable_names(deploy: Deployments) -> None:
    debug = f"127.0.0.1:{free_port()}"
    server = deploy("image-v3", by_variable=True, HTTP_DEBUG_ADDR=debug)
    pushed = push_image(server.host, "an/image", "1", [b"layer"])
    assert pushed in pull_image(server.host, "an/image", "1")
    with Client(debug) as operator:
        assert b"registry_http_requests_total{" in operator.ask("GET", "/metrics", expect=200).body
        assert operator.body_of("/debug/health") == {}
    assert complaints(server) == []


def test_a_helm_chart_that_says_nearly_all_by_variables(deploy: Deployments, tmp_path: Path) -> None:
    """With what Kubernetes itself tells a container beside a service that is called `registry`."""
    server = deploy(
        "kubernetes",
        AUTH="htpasswd",
        AUTH_HTPASSWD_REALM="Registry Realm",
        AUTH_HTPASSWD_PATH=htpasswd(tmp_path / "htpasswd", admin="secret"),
        HTTP_SECRET="b7dd1e4f",
        HTTP_DEBUG_ADDR=f"127.0.0.1:{free_port()}",
        HTTP_DEBUG_PROMETHEUS_ENABLED="true",
        STORAGE_DELETE_ENABLED="true",
        PORT="tcp://10.96.0.12:5000",
        PORT_5000_TCP="tcp://10.96.0.12:5000",
        PORT_5000_TCP_ADDR="10.96.0.12",
        SERVICE_HOST="10.96.0.12",
        SERVICE_PORT="5000",
    )
    assert status(server.host, "GET", "/v2/") == 401
    with Client(server.host, headers=basic("admin", "secret")) as client:
        digest = push_image_on(client, "an/image", "1", [b"layer"])
        assert digest in pull_image_on(client, "an/image", "1")
        assert client.ask("DELETE", f"/v2/an/image/manifests/{digest}").status == 202
    assert complaints(server) == []
    assert "b7dd1e4f" not in server.text


def test_images_in_memory_for_a_developer(deploy: Deployments) -> None:
    server = deploy("development", root="")
    assert push_image(server.host, "an/image", "1", [b"layer"]) in pull_image(server.host, "an/image", "1")
    hooks, memory = complaints(server)
    assert hooks == "development.yml:8: log.hooks: is not served: no mail is sent: collect the log where it goes"
    assert memory.startswith("images are kept in memory")
    assert "password" not in server.text
    assert {line["environment"] for line in server.lines()} == {"development"}


def test_an_old_file_warns_once_of_each_key_that_is_not_served(deploy: Deployments) -> None:
    server = deploy("old", LOG_LEVEL="info")
    assert push_image(server.host, "an/image", "1", [b"layer"]) in pull_image(server.host, "an/image", "1")
    keys = ["redis", "reporting", "compatibility"]
    assert [each.split(": ")[1] for each in complaints(server)] == keys
    *told, last = server.registry("check-config").splitlines()
    assert [line.split(": ")[2] for line in told if line.startswith("warning")] == keys
    assert last == f"{FILES}/old.yml: fine"


def test_lines_for_logstash(deploy: Deployments) -> None:
    server = deploy("logstash")
    assert status(server.host, "GET", "/v2/an/image/manifests/1") == 404
    server.stop()
    lines = [json.loads(line) for line in server.text.splitlines()]
    own = {"@version": "1", "type": "log", "service": "registry", "environment": "production", "datacenter": "eu-1"}
    for line in lines:
        assert own.items() <= line.items()
        assert {"@timestamp", "level", "message"} <= set(line)
    assert [line["http.response.status"] for line in lines if line["message"] == "response completed"] == [404]


def test_health_and_metrics_at_the_debug_address(deploy: Deployments, tmp_path: Path) -> None:
    down, debug = tmp_path / "down", f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as redis:
        server = deploy(
            "debug-address",
            HTTP_DEBUG_ADDR=debug,
            HEALTH_FILECHECKERS_0_FILE=down,
            HEALTH_FILECHECKERS_0_INTERVAL="20ms",
            HEALTH_TCPCHECKERS_0_ADDR=f"127.0.0.1:{redis.getsockname()[1]}",
        )
        with Client(debug) as operator:
            eventually(lambda: operator.ask("GET", "/debug/health").body == b"{}")
            down.touch()
            eventually(lambda: status(server.host, "GET", "/v2/") == 503)
            assert set(operator.body_of("/debug/health", 503)) == {str(down)}
            metrics = operator.ask("GET", "/metrics", expect=200).body.decode()
            assert f'registry_health_check_failing{{check="{down}"}} 1' in metrics
            down.unlink()
            eventually(lambda: status(server.host, "GET", "/v2/") == 200)
    assert complaints(server) == [f"health: {down} fails: file exists", f"health: {down} is well again"]
    assert all(line.startswith("{") for line in server.text.splitlines())


def test_deletes_and_garbage_that_is_collected_while_it_is_stopped(deploy: Deployments, tmp_path: Path) -> None:
    server = deploy("deletes")
    gone, kept = (push_image(server.host, "an/image", tag, [b"only in " + tag.encode()]) for tag in ("old", "new"))
    assert status(server.host, "DELETE", f"/v2/an/image/manifests/{gone}") == 202
    server.stop()
    digest = sha256(b"only in old").removeprefix("sha256:")
    layer = tmp_path / "root/docker/registry/v2/blobs/sha256" / digest[:2] / digest
    # What is so young might belong to a push that is on its way.
    assert "younger than the grace period" in server.registry("garbage-collect")
    assert layer.exists()
    said = server.registry("garbage-collect", "--delete-untagged", "--grace-period", "0s")
    assert f"blob eligible for deletion: sha256:{digest}" in said
    assert not layer.exists()
    server.start()
    assert kept in pull_image(server.host, "an/image", "new")
    assert status(server.host, "GET", "/v2/an/image/manifests/old") == 404
    assert complaints(server) == []


def test_a_hook_that_is_told_of_pushes(deploy: Deployments, receiver: Receiver) -> None:
    server = deploy("notifications", NOTIFICATIONS_ENDPOINTS_0_URL=receiver.url)
    digest = push_image(server.host, "an/image", "1", [b"layer"])
    assert digest in pull_image(server.host, "an/image", "1")
    receiver.wait_taken(6)
    assert receiver.actions == ["push"] * 3 + ["pull"] * 3
    pushed = receiver.taken[2]["target"]
    assert (pushed["repository"], pushed["tag"], pushed["digest"]) == ("an/image", "1", digest)
    assert [each["digest"] for each in pushed["references"]][-1] == sha256(b"layer")
    assert complaints(server) == []


def test_several_hooks_each_with_what_it_wants(deploy: Deployments, receiver: Receiver) -> None:
    names = ("deploy", "statistics", "everything")
    urls: Any = {f"NOTIFICATIONS_ENDPOINTS_{n}_URL": f"{receiver.url}/{name}" for n, name in enumerate(names)}
    server = deploy("several-receivers", **urls)
    digest = push_image(server.host, "an/image", "1", [b"layer"])
    pull_image(server.host, "an/image", "1")
    assert status(server.host, "DELETE", f"/v2/an/image/manifests/{digest}") == 202

    def told(name: str) -> list[str]:
        return [each.event["action"] for each in receiver.came if each.path.endswith(f"/{name}")]

    everything = ["push"] * 3 + ["pull"] * 3 + ["delete"] * 2
    receiver.wait(lambda _: told("everything") == everything and len(told("deploy") + told("statistics")) == 2)
    assert (told("deploy"), told("statistics")) == (["push"], ["pull"])
    tokens = {each.path.rpartition("/")[2]: each.headers.get("authorization") for each in receiver.came}
    assert tokens == {"deploy": "Bearer 0123456789", "statistics": None, "everything": None}
    assert complaints(server) == []
    assert "0123456789" not in server.text


def test_policies_for_what_is_pushed(deploy: Deployments) -> None:
    server = deploy("policies")
    push_image(server.host, "an/image", "arm", [b"layer"], architecture="arm64")
    with Client(server.host) as client:
        index: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        for architecture, expected in (("arm64", 201), ("amd64", 404)):
            child = {"mediaType": MANIFEST, "digest": sha256(b"not here"), "size": 8}
            index["manifests"] = [{**child, "platform": {"architecture": architecture, "os": "linux"}}]
            answer = client.ask("PUT", "/v2/an/image/manifests/all", json.dumps(index), Content_Type=INDEX)
            assert answer.status == expected
    assert complaints(server) == []
