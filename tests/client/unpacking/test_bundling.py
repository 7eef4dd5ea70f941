"""Bundles, and what real runtimes do with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from client.caching.cache import Cache
from client.progress import Event, Warned
from client.unpacking.bundling import bundle
from ocispec.errors import ConfigurationError, LayerInvalid, ManifestInvalid, PlatformUnknown
from tests.client.unpacking.making import NAME, file, folder, image, symlink, tar
from tests.support.docker import BUSYBOX
from tests.support.peers import find
from tests.support.processes import run
from tests.support.source import ROOT

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n#no:x:1:1::\n"
GROUP = "root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:20:app\nbad:x:many:app\n"
ETC = [file("etc/passwd", PASSWD), file("etc/group", GROUP)]


async def made(cache: Cache, place: Path, settings: dict[str, Any], **options: Any) -> dict[str, Any]:
    await image(cache, tar(*ETC), settings={"Cmd": ["sh"], **settings}, author="me", created="2026-01-01T00:00:00Z")
    await bundle(cache, NAME, place, **options)
    return json.loads((place / "config.json").read_text())


async def test_a_bundle_says_what_the_images_config_says(cache: Cache, tmp_path: Path):
    config = await made(
        cache,
        tmp_path / "out",
        {
            "Entrypoint": ["/bin/app", "--serve"],
            "Cmd": ["now"],
            "Env": ["A=1", "B=x=y"],
            "WorkingDir": "/srv",
            "StopSignal": "SIGINT",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Labels": {"org.opencontainers.image.author": "you", "any.label": "kept"},
        },
    )
    process = config["process"]
    assert process["args"] == ["/bin/app", "--serve", "now"]
    assert process["cwd"] == "/srv"
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B=x=y"]
    assert config["annotations"] == {
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.author": "you",
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "org.opencontainers.image.exposedPorts": "53/udp,80/tcp",
        "any.label": "kept",
    }
    assert (config["hostname"], config["root"]) == ("tree", {"path": "rootfs", "readonly": False})
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["config.json", "rootfs"]


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("", 0, 0, [0, 10]),
        ("root", 0, 0, [0, 10]),
        ("app", 1000, 1001, [1001, 10, 20]),
        ("1000", 1000, 1001, [1001, 10, 20]),
        ("app:wheel", 1000, 10, None),
        ("app:77", 1000, 77, None),
        ("12:34", 12, 34, None),
        ("12", 12, 0, [0]),
        (":wheel", 0, 10, None),
    ],
)
async def test_the_user_is_found_in_the_image(cache: Cache, tmp_path: Path, user, uid, gid, groups):  # noqa: PLR0917
    process = (await made(cache, tmp_path / "out", {"User": user}))["process"]
    told = {"uid": uid, "gid": gid} | ({"additionalGids": groups} if groups else {})
    assert process["user"] == told
    assert ("effective" in process["capabilities"]) is (uid == 0)
    assert "CAP_NET_BIND_SERVICE" in process["capabilities"]["bounding"]


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("who", "it runs as 'who', and 'who' is neither in its /etc/passwd nor a number it can be"),
        ("app:who", "it runs as 'app:who', and 'who' is neither in its /etc/group nor a number it can be"),
        (
            "4294967296",
            "it runs as '4294967296', and '4294967296' is neither in its /etc/passwd nor a number it can be",
        ),
        ("-1", "it runs as '-1', and '-1' is neither in its /etc/passwd nor a number it can be"),
    ],
)
async def test_a_user_that_the_image_does_not_have_is_refused(cache: Cache, tmp_path: Path, user: str, message: str):
    with pytest.raises(LayerInvalid) as caught:
        await made(cache, tmp_path / "out", {"User": user})
    assert caught.value.message == f"{NAME}: {message}"
    assert not (tmp_path / "out").exists()


async def test_the_users_of_this_machine_are_not_asked(cache: Cache, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "passwd").write_text("app:x:7:7::/:/bin/sh\n")
    await image(cache, tar(symlink("etc", str(outside))), settings={"User": "app", "Cmd": ["x"]})
    with pytest.raises(LayerInvalid, match="'app' is neither in its /etc/passwd"):
        await bundle(cache, NAME, tmp_path / "out")


async def test_variables_are_set_as_docker_run_sets_them(cache: Cache, tmp_path: Path):
    config = await made(
        cache,
        tmp_path / "out",
        {"Env": ["PATH=/bin", "A=1", "B=2", "C=3"]},
        env=["B=new", "D=", "HERE", "NOT_HERE", "C", "A=x=y"],
        environment={"HERE": "from here", "B": "not asked for"},
    )
    assert config["process"]["env"] == ["PATH=/bin", "A=x=y", "B=new", "D=", "HERE=from here"]


@pytest.mark.parametrize("change", ["", "=x", "A=\0"])
async def test_a_variable_needs_a_name(cache: Cache, tmp_path: Path, change: str):
    with pytest.raises(ConfigurationError, match="expected NAME=value, or NAME"):
        await made(cache, tmp_path / "out", {}, env=[change])


async def test_words_replace_the_command_and_not_the_entrypoint(cache: Cache, tmp_path: Path):
    config = await made(cache, tmp_path / "out", {"Entrypoint": ["app"], "Cmd": ["old"]}, args=["-v", "new"])
    assert config["process"]["args"] == ["app", "-v", "new"]


async def test_a_bundle_needs_a_command(cache: Cache, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="names no command: give one"):
        await made(cache, tmp_path / "out", {"Cmd": None})
    assert (await made(cache, tmp_path / "out", {"Cmd": None}, args=["x"]))["process"]["args"] == ["x"]


@pytest.mark.parametrize(
    ("told", "folder_"), [("", "/"), (None, "/"), ("app", "/app"), ("/a/../b/", "/b"), ("//x", "/x")]
)
async def test_it_starts_in_an_absolute_folder(cache: Cache, tmp_path: Path, told: str | None, folder_: str):
    assert (await made(cache, tmp_path / "out", {"WorkingDir": told}))["process"]["cwd"] == folder_


async def test_labels_that_a_runtime_would_act_on_are_left_out_and_told(cache: Cache, tmp_path: Path):
    """conversion.md: annotations may run hooks on the host, or change what isolates the container."""
    labels = {"run.oci.handler": "wasm", "org.systemd.property.ExecStart": "x", "org.criu.config": "x", "mine": "1"}
    events: list[Event] = []
    config = await made(cache, tmp_path / "out", {"Labels": labels}, report=events.append)
    assert "mine" in config["annotations"]
    assert not set(config["annotations"]) & (set(labels) - {"mine"})
    (told,) = [each.message for each in events if isinstance(each, Warned)]
    names = "org.criu.config, org.systemd.property.ExecStart, run.oci.handler"
    assert told == f"left out labels that a runtime would act on: {names}"


@pytest.mark.parametrize(
    "settings", [{"Env": "A=1"}, {"Cmd": [1]}, {"User": 5}, {"Labels": {"a": 1}}, {"StopSignal": 9}]
)
async def test_a_config_that_breaks_the_specification_is_refused(
    cache: Cache, tmp_path: Path, settings: dict[str, Any]
):
    with pytest.raises(ManifestInvalid, match="image config invalid"):
        await made(cache, tmp_path / "out", settings)


async def test_a_bundle_is_for_linux(cache: Cache, tmp_path: Path):
    await image(cache, tar(), os="windows", settings={"Cmd": ["x"]})
    with pytest.raises(PlatformUnknown, match="expected an image for linux"):
        await bundle(cache, NAME, tmp_path / "out")


SHOW = "id -u; id -G; pwd; echo $GREETING; hostname; ls /proc/self/fd >/dev/null && echo proc; cat /made"
COMMANDS = {
    "runc": ["runc"],
    # Where cgroups v1 and v2 are mounted side by side crun does not start; in a mount namespace of its own it sees v1.
    "crun": ["unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified 2>/dev/null; exec crun "$@"', "crun"],
}


async def busybox(cache: Cache, settings: dict[str, Any]) -> None:
    program = file("bin/busybox", Path(BUSYBOX).read_bytes(), 0o755)
    links = [symlink(f"bin/{each}", "busybox") for each in ("sh", "id", "cat", "ls", "hostname")]
    base = tar(folder("./"), program, *links, *ETC, file("gone"))
    await image(cache, base, tar(file("made", "by the second layer"), file(".wh.gone")), settings=settings)


def started(runtime: str, place: Path) -> str:
    """What a container of the bundle prints; whatever is left of it is deleted."""
    name = f"layerhouse-{uuid4().hex[:12]}"
    program = [find(COMMANDS[runtime][0]) or "", *COMMANDS[runtime][1:]]
    command = [*program, "run", "--bundle", str(place), name]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.peer("busybox", "runc")
async def test_runc_starts_a_bundle(cache: Cache, tmp_path: Path):
    await starts(cache, tmp_path, "runc")


@pytest.mark.peer("busybox", "crun")
async def test_crun_starts_a_bundle(cache: Cache, tmp_path: Path):
    await starts(cache, tmp_path, "crun")


async def starts(cache: Cache, tmp_path: Path, runtime: str) -> None:
    env = ["GREETING=from the image", "PATH=/bin"]
    await busybox(cache, {"Entrypoint": ["/bin/sh", "-c"], "Cmd": [SHOW], "Env": env, "WorkingDir": "/work"})
    await bundle(cache, NAME, tmp_path / "root", env=["GREETING=from here"])
    seen = ["0", "0 10", "/work", "from here", "tree", "proc", "by the second layer"]
    assert started(runtime, tmp_path / "root").splitlines() == seen
    await busybox(cache, {"User": "app", "Cmd": ["/bin/sh", "-c", "never"], "Env": env, "WorkingDir": "/"})
    script = "id -u; id -G; cat /proc/self/status | grep CapEff; ls -d /gone; echo $HOME; mknod /x c 1 3 || echo no"
    script = script.replace("cat /proc/self/status | grep CapEff", "/bin/busybox grep CapEff /proc/self/status")
    words: Sequence[str] = ["/bin/sh", "-c", script.replace("mknod", "/bin/busybox mknod").replace("ls -d /gone; ", "")]
    await bundle(cache, NAME, tmp_path / "user", args=words)
    told = started(runtime, tmp_path / "user").splitlines()
    assert told == ["1000", "1001 10 20", "CapEff:\t0000000000000000", "/home/app", "no"]


ROOTLESS = """
import asyncio, concurrent.futures.thread, os, sys
from client.caching.cache import Cache
from client.unpacking.bundling import bundle
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
root = sys.argv[1]
asyncio.run(bundle(Cache(root + "/cache"), "{name}", root + "/out", report=lambda event: print(event, flush=True)))
os.execv(sys.argv[2], ["runc", "--root", root + "/state", "run", "--bundle", root + "/out", "{id}"])
"""


@pytest.mark.peer("busybox", "runc")
@pytest.mark.parametrize("user", ["", "app"])
async def test_whoever_made_a_bundle_can_start_it(public: Path, user: str):
    """Without root: who made it is root in there, and nobody else is."""
    script = "id -u; cat /made; echo; hostname"
    await busybox(Cache(public / "cache"), {"User": user, "Cmd": ["/bin/sh", "-c", script], "Env": ["PATH=/bin"]})
    run("chmod", "-R", "a+rwX", str(public / "cache"))
    program = ROOTLESS.replace("{name}", NAME).replace("{id}", f"layerhouse-{uuid4().hex[:12]}")
    env = {"XDG_RUNTIME_DIR": str(public), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(public), find("runc") or ""],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    told = [line for line in ended.stdout.splitlines() if not line.startswith("LayerUnpacked")]
    if user:
        assert ended.returncode != 0
        assert "it runs as user 1000, which only root can start" in "".join(told)
    else:
        assert told[-3:] == ["0", "by the second layer", "tree"], ended.stderr
