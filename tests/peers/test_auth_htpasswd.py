"""Real clients against users of an htpasswd file, with anonymous pull of what is public."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.callers import htpasswd
from tests.support.docker import DockerEngine
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program, run

HERE = {"PYTHONPATH": str(REPOSITORY_ROOT)}
SEEN_WITHIN = 0.1  # seconds until a changed file counts, as docs/access.md promises
REFUSED = r"unauthorized|authentication required|invalid username/password"
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
auth: {{htpasswd: {{realm: The Shire, path: {passwords}}}}}
layerhouse:
  access:
    rules:
      - {{who: anyone, allow: pull, repositories: "public/**"}}
      - {{who: authenticated, allow: [pull, push, delete]}}
"""


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return htpasswd(tmp_path_factory.mktemp("auth") / "htpasswd", alice="secret", bob="other")


@pytest.fixture(scope="module")
def host(passwords: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("registry")
    config = folder / "config.yml"
    config.write_text(CONFIG.format(root=folder / "root", passwords=passwords))
    server = RegistryProcess(folder / "root", log=folder / "log", workers=2, args=[str(config)])
    server.start()
    yield server.host
    print(server.log())
    server.stop()


@pytest.fixture(scope="module")
def pushed(host: str, docker_engine: DockerEngine, busybox_image: str) -> str:
    """The host, with the same image in `public/app` and `private/app`, pushed by docker."""
    docker_engine("login", "--username", "alice", "--password", "secret", host)
    for name in (f"{host}/public/app:1", f"{host}/private/app:1"):
        docker_engine("tag", busybox_image, name)
        docker_engine("push", name)
        docker_engine("rmi", name)
    docker_engine("logout", host)
    return host


@pytest.mark.peer("docker", "busybox")
def test_docker_logs_in_pushes_pulls_and_logs_out(pushed: str, docker_engine: DockerEngine, busybox_image: str) -> None:
    name = f"{pushed}/private/app:1"
    # It gives up at the challenge, whatever anonymous may read: see docs/access.md.
    for wanted in (name, f"{pushed}/public/app:1"):
        with pytest.raises(RuntimeError, match="no basic auth credentials"):
            docker_engine("pull", wanted)
    with pytest.raises(RuntimeError, match="failed with status: 401 Unauthorized"):
        docker_engine("login", "--username", "alice", "--password", "wrong", pushed)
    assert "Login Succeeded" in docker_engine("login", "--username", "bob", "--password", "other", pushed)
    assert "Status: " in docker_engine("pull", name)
    docker_engine("rmi", name)
    docker_engine("logout", pushed)
    docker_engine("tag", busybox_image, name)
    with pytest.raises(RuntimeError, match="no basic auth credentials"):
        docker_engine("push", name)
    docker_engine("rmi", name)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_skopeo_reads_what_is_public_and_logs_in_for_the_rest(pushed: str, tmp_path: Path) -> None:
    login = ["--authfile", str(tmp_path / "auth.json")]
    skopeo_copy(login, f"docker://{pushed}/public/app:1", f"dir:{tmp_path / 'public'}")
    for source, target in ((f"docker://{pushed}/private/app:1", "private"), (f"dir:{tmp_path / 'public'}", None)):
        with pytest.raises(RuntimeError, match="unauthorized"):
            skopeo_copy(login, source, f"dir:{tmp_path / target}" if target else f"docker://{pushed}/public/other:1")
    with pytest.raises(RuntimeError, match="invalid username/password"):
        run("skopeo", "login", "--tls-verify=false", *login, "-u", "alice", "-p", "wrong", pushed)
    run("skopeo", "login", "--tls-verify=false", *login, "-u", "alice", "-p", "secret", pushed)
    skopeo_copy(login, f"docker://{pushed}/private/app:1", f"docker://{pushed}/public/other:1")
    run("skopeo", "logout", *login, pushed)
    skopeo_copy(login, f"docker://{pushed}/public/other:1", f"dir:{tmp_path / 'other'}")


def skopeo_copy(login: list[str], source: str, target: str) -> None:
    tls = ["--src-tls-verify=false"] if source.startswith("docker://") else []
    tls += ["--dest-tls-verify=false"] if target.startswith("docker://") else []
    run("skopeo", "--insecure-policy", "copy", *tls, *login, source, target)


@pytest.mark.peer("docker", "busybox", "containerd")
def test_containerd_pulls_what_is_public_without_a_login(pushed: str, docker_engine: DockerEngine) -> None:
    # The one that docker runs: its other namespaces are free.
    ctr = ["ctr", "--address", f"{docker_engine.folder}/exec/containerd/containerd.sock", "--namespace", "auth"]
    pull = [*ctr, "images", "pull", "--plain-http", "--snapshotter", "native"]
    run(*pull, f"{pushed}/public/app:1")
    with pytest.raises(RuntimeError, match="401 Unauthorized"):
        run(*pull, f"{pushed}/private/app:1")
    run(*pull, "--user", "alice:secret", f"{pushed}/private/app:1")
    run(*ctr, "images", "remove", f"{pushed}/public/app:1", f"{pushed}/private/app:1")


@pytest.mark.peer("docker", "busybox", "podman")
def test_podman_pulls_what_is_public_and_pushes_once_it_is_logged_in(pushed: str, tmp_path: Path) -> None:
    trust = tmp_path / "policy.json"
    trust.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    login = ["--tls-verify=false", "--authfile", str(tmp_path / "auth.json")]
    (tmp_path / "auth.json").write_text("{}")
    # podman refuses a run root whose path is longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="lh-podman-") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        pull = [*podman, "pull", "--quiet", *login, "--signature-policy", str(trust)]
        image = run(*pull, f"{pushed}/public/app:1")
        with pytest.raises(RuntimeError, match="unauthorized"):
            run(*pull, f"{pushed}/private/app:1")
        run(*podman, "login", *login, "-u", "alice", "-p", "secret", pushed)
        push = ["push", *login, "--signature-policy", str(trust), image, f"docker://{pushed}/private/podman:1"]
        run(*podman, *push)
        assert run(*pull, f"{pushed}/private/podman:1") == image
        run(*podman, "logout", "--authfile", str(tmp_path / "auth.json"), pushed)
        with pytest.raises(RuntimeError, match=REFUSED):
            run(*podman, *push)


@pytest.mark.peer("docker", "busybox")
def test_pullclient_pulls_what_is_public_and_logs_in_for_the_rest(pushed: str, tmp_path: Path) -> None:
    env = {**HERE, "DOCKER_CONFIG": str(tmp_path), "PASSWORD": "secret"}
    client = program("pullclient")
    cached = ["--cache", str(tmp_path / "cache"), "--quiet"]
    digest = run(*client, "pull", *cached, f"{pushed}/public/app:1", env=env)
    with pytest.raises(RuntimeError, match="wants a login"):
        run(*client, "pull", *cached, f"{pushed}/private/app:1", env=env)
    login = ["sh", "-c", f'printf %s "$PASSWORD" | "$0" "$@" login -u alice --password-stdin {pushed}', *client]
    with pytest.raises(RuntimeError, match="refused the credentials of alice"):
        run(*login, env={**env, "PASSWORD": "wrong"})
    run(*login, env=env)
    assert run(*client, "pull", *cached, f"{pushed}/private/app:1", env=env) == digest
    run(*client, "push", "--cache", str(tmp_path / "cache"), f"{pushed}/private/app:1", f"{pushed}/mine:1", env=env)
    run(*client, "logout", pushed, env=env)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_users_who_are_changed_or_removed_are_refused_by_every_worker(pushed: str, passwords: Path) -> None:
    def inspect(password: str) -> str:
        login = ["--tls-verify=false", "--creds", f"bob:{password}"]
        return run("skopeo", "inspect", "--raw", *login, f"docker://{pushed}/private/app:1")

    before = inspect("other")
    htpasswd(passwords, alice="secret", bob="changed")
    time.sleep(SEEN_WITHIN)
    for _ in range(4):
        with pytest.raises(RuntimeError, match=REFUSED):
            inspect("other")
    assert inspect("changed") == before
    htpasswd(passwords, alice="secret")
    time.sleep(SEEN_WITHIN)
    for _ in range(4):
        with pytest.raises(RuntimeError, match=REFUSED):
            inspect("changed")
