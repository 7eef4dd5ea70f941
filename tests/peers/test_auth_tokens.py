"""Real clients with tokens: of a token server that is not ours, of the built-in one, and a robot's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.callers import htpasswd
from tests.support.docker import DockerEngine
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program, run
from tests.support.tokens import ISSUER, SERVICE
from tests.support.tokenserver import OutsideServer

HERE = {"PYTHONPATH": str(REPOSITORY_ROOT)}
DENIED = r"unauthorized|denied|authentication required|insufficient_scope|invalid username/password|not granted|401"
STORAGE = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}\n"
OUTSIDE = STORAGE + "auth: {{token: {{realm: {realm}, service: {service}, issuer: {issuer}, jwks: {keys}}}}}\n"
OWN = (
    STORAGE
    + """\
auth: {{htpasswd: {{realm: The Shire, path: {passwords}}}}}
layerhouse:
  tokens: {{enabled: true}}
  access:
    rules:
      - {{who: anyone, allow: pull, repositories: "public/**"}}
      - {{who: authenticated, allow: [pull, push, delete]}}
"""
)


@dataclass(frozen=True)
class Site:
    """A registry whose tokens alice gets by her password, and nobody for what is public."""

    server: RegistryProcess
    config: Path

    @property
    def host(self) -> str:
        return self.server.host

    def token(self, *words: str) -> str:
        return run(*program("registry"), "token", *words, "--config", str(self.config), env=HERE)


def started(folder: Path, config: str, workers: int) -> Site:
    file = folder / "config.yml"
    file.write_text(config)
    site = Site(RegistryProcess(folder / "root", log=folder / "log", workers=workers, args=[str(file)]), file)
    site.server.start()
    return site


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("outside")
    with OutsideServer(alice="secret") as tokens:
        given = {"realm": tokens.realm, "keys": tokens.url, "service": SERVICE, "issuer": ISSUER}
        site = started(folder, OUTSIDE.format(root=folder / "root", **given), 1)
        yield site
        print(site.server.log())
        site.server.stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("own")
    passwords = htpasswd(folder / "htpasswd", alice="secret", bob="other")
    site = started(folder, OWN.format(root=folder / "root", passwords=passwords), 2)
    yield site
    print(site.server.log())
    site.server.stop()


@pytest.fixture(params=["outside", "own"])
def site(request: pytest.FixtureRequest) -> Site:
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.mark.peer("docker", "busybox")
def test_docker_logs_in_pushes_pulls_and_logs_out(site: Site, docker_engine: DockerEngine, busybox_image: str) -> None:
    name = f"{site.host}/private/docker:1"
    docker_engine("tag", busybox_image, name)
    with pytest.raises(RuntimeError, match=DENIED):
        docker_engine("push", name)
    with pytest.raises(RuntimeError, match=r"401 Unauthorized|unauthorized"):
        docker_engine("login", "--username", "alice", "--password", "wrong", site.host)
    assert "Login Succeeded" in docker_engine("login", "--username", "alice", "--password", "secret", site.host)
    docker_engine("push", name)
    docker_engine("rmi", name)
    assert "Status: " in docker_engine("pull", name)
    docker_engine("logout", site.host)
    docker_engine("rmi", name)
    with pytest.raises(RuntimeError, match=DENIED):
        docker_engine("pull", name)


@pytest.mark.peer("docker", "busybox")
def test_docker_keeps_a_login_in_place_of_the_password(
    own: Site, docker_engine: DockerEngine, busybox_image: str
) -> None:
    name = f"{own.host}/private/kept:1"
    docker_engine("login", "--username", "bob", "--password", "other", own.host)
    kept = json.loads((docker_engine.folder / "cli" / "config.json").read_text())["auths"][own.host]
    assert kept["identitytoken"].startswith("lhr_")
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    (login,) = (line.split()[0] for line in own.token("list").splitlines() if " login " in line and " bob " in line)
    own.token("revoke", login)
    with pytest.raises(RuntimeError, match=DENIED):
        docker_engine("push", name)
    docker_engine("rmi", name)
    docker_engine("logout", own.host)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_skopeo_reads_what_is_public_and_logs_in_for_the_rest(site: Site, image: str, tmp_path: Path) -> None:
    login = ["--authfile", str(tmp_path / "auth.json")]
    public, private = f"docker://{site.host}/public/app:1", f"docker://{site.host}/private/skopeo:1"
    with pytest.raises(RuntimeError, match=DENIED):
        copy(login, f"dir:{image}", public)
    with pytest.raises(RuntimeError, match=r"invalid username/password|unauthorized"):
        run("skopeo", "login", "--tls-verify=false", *login, "-u", "alice", "-p", "wrong", site.host)
    run("skopeo", "login", "--tls-verify=false", *login, "-u", "alice", "-p", "secret", site.host)
    for each in (public, private):
        copy(login, f"dir:{image}", each)
    copy(login, private, f"dir:{tmp_path / 'private'}")
    run("skopeo", "logout", *login, site.host)
    copy(login, public, f"dir:{tmp_path / 'public'}")
    with pytest.raises(RuntimeError, match=DENIED):
        copy(login, private, f"dir:{tmp_path / 'again'}")


@pytest.mark.peer("docker", "busybox", "skopeo", "podman")
def test_podman_logs_in_pushes_and_pulls(own: Site, image: str, tmp_path: Path) -> None:
    trust = tmp_path / "policy.json"
    trust.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    login = ["--tls-verify=false", "--authfile", str(tmp_path / "auth.json")]
    name = f"{own.host}/private/podman:1"
    # podman refuses a run root whose path is longer than 50 characters.
    with tempfile.TemporaryDirectory(prefix="lh-podman-") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        run(*podman, "login", *login, "-u", "alice", "-p", "secret", own.host)
        local = run(*podman, "pull", "--quiet", "--signature-policy", str(trust), f"dir:{image}")
        run(*podman, "push", *login, "--signature-policy", str(trust), local, f"docker://{name}")
        run(*podman, "pull", "--quiet", *login, "--signature-policy", str(trust), name)
        run(*podman, "logout", "--authfile", str(tmp_path / "auth.json"), own.host)
        with pytest.raises(RuntimeError, match=DENIED):
            run(*podman, "pull", "--quiet", *login, "--signature-policy", str(trust), name)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_pullclient_logs_in_pulls_and_pushes(site: Site, image: str, tmp_path: Path) -> None:
    env = {**HERE, "DOCKER_CONFIG": str(tmp_path)}
    client, cached = program("pullclient"), ["--cache", str(tmp_path / "cache"), "--quiet"]
    copy(["--dest-creds", "alice:secret"], f"dir:{image}", f"docker://{site.host}/private/pulled:1")
    with pytest.raises(RuntimeError, match=r"login|grants"):
        run(*client, "pull", *cached, f"{site.host}/private/pulled:1", env=env)
    login = f'printf %s secret | "$0" "$@" login -u alice --password-stdin {site.host}'
    run("sh", "-c", login, *client, env=env)
    run(*client, "pull", *cached, f"{site.host}/private/pulled:1", env=env)
    run(*client, "push", *cached[:2], f"{site.host}/private/pulled:1", f"{site.host}/private/again:1", env=env)
    run(*client, "logout", site.host, env=env)


@pytest.mark.peer("docker", "busybox", "skopeo")
def test_a_robot_pushes_to_one_repository_until_it_is_revoked(
    own: Site, docker_engine: DockerEngine, busybox_image: str, image: str
) -> None:
    secret = own.token("create", "ci", "--robot", "--repository", "team/app", "--action", "pull,push")
    names = [f"{own.host}/{each}:1" for each in ("team/app", "team/other")]
    for name in names:
        docker_engine("tag", busybox_image, name)
    docker_engine("login", "--username", "ci", "--password", secret, own.host)
    docker_engine("push", names[0])
    with pytest.raises(RuntimeError, match=DENIED):
        docker_engine("push", names[1])
    robot = ["--dest-creds", f"ci:{secret}"]
    copy(robot, f"dir:{image}", f"docker://{names[0]}")
    with pytest.raises(RuntimeError, match=DENIED):
        copy(robot, f"dir:{image}", f"docker://{names[1]}")
    own.token("revoke", "ci")
    with pytest.raises(RuntimeError, match=DENIED):
        docker_engine("push", names[0])
    with pytest.raises(RuntimeError, match=DENIED):
        copy(robot, f"dir:{image}", f"docker://{names[0]}")
    docker_engine("logout", own.host)
    for name in names:
        docker_engine("rmi", name)


@pytest.fixture(scope="module")
def image(own: Site, docker_engine: DockerEngine, busybox_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The busybox image as skopeo's `dir:` has it."""
    folder = str(tmp_path_factory.mktemp("image") / "dir")
    name = f"{own.host}/seed:1"
    docker_engine("login", "--username", "alice", "--password", "secret", own.host)
    docker_engine("tag", busybox_image, name)
    docker_engine("push", name)
    docker_engine("rmi", name)
    docker_engine("logout", own.host)
    copy(["--src-creds", "alice:secret"], f"docker://{name}", f"dir:{folder}")
    return folder


def copy(login: list[str], source: str, target: str) -> None:
    tls = ["--src-tls-verify=false"] if source.startswith("docker://") else []
    tls += ["--dest-tls-verify=false"] if target.startswith("docker://") else []
    run("skopeo", "--insecure-policy", "copy", *tls, *login, source, target)
