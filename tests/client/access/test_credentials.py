"""Where credentials are found, in which order, and what login leaves behind."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from client.access.credential import Credential
from client.access.credentials import Credentials, Given, Kept
from ocispec.errors import CredentialsError
from tests.client.helpers import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def basic(user: str, password: str = "pw") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


async def user(machine: Machine, host: str, repository: str = "a/b", **environ: str) -> str | None:
    found = await machine.credentials(**environ).find(host, repository)
    return found.username if found else None


@pytest.mark.parametrize(
    ("entry", "credential"),
    [
        (basic("alice", "p:w"), Credential("alice", "p:w")),
        (basic("ünï", "pw\0"), Credential("ünï", "pw")),
        ({"username": "alice", "password": "pw"}, Credential("alice", "pw")),
        ({**basic("alice"), "username": "bob", "password": "x"}, Credential("alice", "pw")),
        ({**basic("alice", ""), "identitytoken": "1d"}, Credential("alice", identity_token="1d")),
        ({"identitytoken": "1d"}, Credential(identity_token="1d")),
        ({"registrytoken": "r3g"}, Credential(registry_token="r3g")),
        ({"auth": "", "email": "a@b"}, None),
        ({"auth": None}, None),
        (basic("alice", ""), None),
        ({}, None),
    ],
)
async def test_every_form_of_entry_is_read(machine: Machine, entry: dict[str, Any], credential: Credential | None):
    machine.docker({"auths": {"ghcr.io": entry}})
    found = await machine.credentials().find("ghcr.io", "a/b")
    assert found == credential
    assert found is None or found.place == str(machine.docker_file)


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://docker.io"])
async def test_docker_hub_is_found_under_all_its_names(machine: Machine, key: str):
    machine.docker({"auths": {"ghcr.io": basic("other"), key: basic("alice")}})
    assert await user(machine, "docker.io", "library/node") == "alice"


async def test_of_several_keys_for_one_host_the_one_that_docker_writes_counts(machine: Machine):
    machine.docker({"auths": {
        "https://index.docker.io/v1/access-token": basic("token"),
        "docker.io": basic("bare"),
        "https://index.docker.io/v1/": basic("alice"),
        "https://ghcr.io/v1/": basic("old"),
        "ghcr.io": basic("new"),
    }})  # fmt: skip
    assert await user(machine, "docker.io") == "alice"
    assert await user(machine, "ghcr.io") == "new"
    assert await user(machine, "GHCR.io") == "new"


@pytest.mark.parametrize(
    ("repository", "found"),
    [
        ("foo/bar/image", "image"),
        ("foo/bar/image2", "bar"),
        ("foo/bar", "bar"),
        ("foo/other/image", "foo"),
        ("foobar/image", "host"),
        ("bar", "host"),
        ("", "host"),
    ],
)
async def test_the_closest_namespace_counts(machine: Machine, repository: str, found: str):
    machine.containers({"auths": {
        "h.local": basic("host"),
        "h.local/foo": basic("foo"),
        "h.local/foo/bar": basic("bar"),
        "h.local/foo/bar/image": basic("image"),
        "h.local:5000/foo/bar/image": basic("port"),
    }})  # fmt: skip
    assert await user(machine, "h.local", repository) == found


async def test_files_are_asked_in_the_order_of_podman(machine: Machine):
    assert await user(machine, "ghcr.io") is None
    for name, place in (("docker", machine.docker), ("config", machine.configured), ("running", machine.containers)):
        place({"auths": {"ghcr.io": basic(name)}})
        assert await user(machine, "ghcr.io") == name
    named = machine.root / "named.json"
    named.write_text(json.dumps({"auths": {"quay.io": basic("named")}}))
    assert await user(machine, "quay.io", REGISTRY_AUTH_FILE=str(named)) == "named"
    assert await user(machine, "ghcr.io", REGISTRY_AUTH_FILE=str(named)) == "docker"


async def test_without_variables_the_usual_folders_are_read(machine: Machine):
    configured = machine.home / ".config" / "containers" / "auth.json"
    configured.parent.mkdir(parents=True)
    configured.write_text(json.dumps({"auths": {"ghcr.io": basic("config")}}))
    assert await user(machine, "ghcr.io", XDG_CONFIG_HOME="") == "config"
    credentials = Credentials({"HOME": str(machine.home)})
    assert [str(each.path) for each in credentials._read()] == [
        f"/run/containers/{os.getuid()}/auth.json",
        str(configured),
        str(machine.home / ".docker" / "config.json"),
    ]


async def test_docker_config_names_dockers_folder(machine: Machine):
    folder = machine.root / "elsewhere"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auths": {"ghcr.io": basic("alice")}}))
    assert await user(machine, "ghcr.io", DOCKER_CONFIG=str(folder)) == "alice"


async def test_files_are_read_once(machine: Machine):
    machine.docker({"auths": {"ghcr.io": basic("alice")}})
    credentials = machine.credentials()
    assert await credentials.find("ghcr.io", "a")
    machine.docker_file.write_text("{")
    assert await credentials.find("ghcr.io", "a")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", "is not a JSON object"),
        ('{"auths": []}', "auths is not an object"),
        ('{"credHelpers": "x"}', "credHelpers is not an object"),
        ('{"credHelpers": {"ghcr.io": 1}}', 'credHelpers["ghcr.io"] is not the name of a helper'),
        ('{"credsStore": 1}', "credsStore is not the name of a helper"),
        ('{"auths": {"ghcr.io": "x"}}', 'auths["ghcr.io"] is not an object'),
        ('{"auths": {"ghcr.io": {"auth": 1}}}', 'auths["ghcr.io"].auth is not a text'),
        ('{"auths": {"ghcr.io": {"auth": "c2VjcmV0"}}}', 'auths["ghcr.io"].auth is not base64 of USER:PASSWORD'),
        ('{"auths": {"ghcr.io": {"auth": "s3cret!"}}}', 'auths["ghcr.io"].auth is not base64 of USER:PASSWORD'),
        ('{"auths": {"ghcr.io": {"auth": "/zo="}}}', 'auths["ghcr.io"].auth is not base64 of USER:PASSWORD'),
        ('{"auths": {"ghcr.io": {}, "ghcr.io": {}}}', "the name 'ghcr.io' stands twice in one object"),
        ('"' + "x" * 4 * 1024 * 1024 + '"', "is longer than 4194304 bytes"),
    ],
)
async def test_a_broken_file_is_named_with_the_place(machine: Machine, text: str, place: str):
    machine.docker_file.write_text(text)
    with pytest.raises(CredentialsError) as failed:
        await machine.credentials().find("ghcr.io", "a")
    assert failed.value.message.startswith(str(machine.docker_file))
    assert place in failed.value.message
    assert "ecret" not in failed.value.message
    assert failed.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "\n", "{}", '{"auths": null, "credHelpers": null, "credsStore": ""}'])
async def test_a_file_without_credentials_is_none(machine: Machine, text: str):
    machine.docker_file.write_text(text)
    assert await user(machine, "ghcr.io") is None


async def test_what_is_broken_for_one_host_leaves_the_others(machine: Machine):
    machine.docker({"auths": {"quay.io": {"auth": "!"}, "ghcr.io": basic("alice")}})
    assert await user(machine, "ghcr.io") == "alice"


async def test_a_file_that_cannot_be_read_is_named(machine: Machine):
    machine.docker_file.mkdir()
    with pytest.raises(CredentialsError, match=rf"{machine.docker_file} cannot be read: is a directory"):
        await machine.credentials().find("ghcr.io", "a")
    with pytest.raises(CredentialsError, match=r"^\$REGISTRY_AUTH_FILE: /nowhere/auth\.json does not exist$"):
        await machine.credentials(REGISTRY_AUTH_FILE="/nowhere/auth.json").find("ghcr.io", "a")


async def test_what_is_kept_is_found_and_the_rest_of_the_file_stays(machine: Machine):
    machine.docker({"auths": {"quay.io": basic("old")}, "psFormat": "täble", "HttpHeaders": {"A": "b"}})
    machine.docker_file.chmod(0o644)
    credentials = machine.credentials()
    assert await credentials.find("docker.io", "a") is None
    kept = await credentials.store("docker.io", Credential("alice", "pässword"))
    assert kept == Kept(str(machine.docker_file), plain=True)
    assert await credentials.find("docker.io", "library/node") == Credential("alice", "pässword")
    written = json.loads(machine.docker_file.read_text())
    assert list(written) == ["auths", "psFormat", "HttpHeaders"]
    assert written["psFormat"] == "täble"
    assert written["auths"] == {"quay.io": basic("old"), "https://index.docker.io/v1/": basic("alice", "pässword")}
    assert stat.S_IMODE(machine.docker_file.stat().st_mode) == 0o600
    assert [each.name for each in machine.docker_file.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "credential",
    [Credential("u", identity_token="1d"), Credential(identity_token="1d"), Credential(registry_token="r")],
)
async def test_tokens_are_kept_too(machine: Machine, credential: Credential):
    credentials = machine.credentials()
    await credentials.store("ghcr.io", credential)
    assert await credentials.find("ghcr.io", "a") == credential


async def test_a_first_login_makes_the_folder_for_its_owner_alone(machine: Machine):
    credentials = machine.credentials(DOCKER_CONFIG=str(machine.root / "new" / "docker"))
    await credentials.store("ghcr.io", Credential("alice", "pw"))
    assert stat.S_IMODE((machine.root / "new" / "docker").stat().st_mode) == 0o700
    assert (await credentials.find("ghcr.io", "a") or Credential()).username == "alice"


async def test_a_link_stays_a_link_and_a_file_its_owners(machine: Machine):
    real = machine.root / "dotfiles.json"
    real.write_text("{}")
    if os.geteuid() == 0:
        os.chown(real, 1000, 1000)
    owner = real.stat().st_uid
    machine.docker_file.symlink_to(real)
    await machine.credentials().store("ghcr.io", Credential("alice", "pw"))
    assert machine.docker_file.is_symlink()
    assert "ghcr.io" in real.read_text()
    assert real.stat().st_uid == owner


async def test_logging_out_removes_every_key_of_the_host_and_nothing_else(machine: Machine):
    machine.docker({"auths": {
        "https://index.docker.io/v1/": basic("a"), "docker.io": basic("b"),
        "docker.io/library": basic("c"), "ghcr.io": {},
    }})  # fmt: skip
    credentials = machine.credentials()
    assert await credentials.erase("docker.io") == (str(machine.docker_file),)
    assert list(json.loads(machine.docker_file.read_text())["auths"]) == ["docker.io/library", "ghcr.io"]
    before = machine.docker_file.stat()
    assert await credentials.erase("docker.io") == ()
    assert machine.docker_file.stat() == before
    assert await credentials.erase("ghcr.io") == ()
    assert await credentials.find("docker.io", "") is None


async def test_a_broken_file_is_not_written_over(machine: Machine):
    machine.docker_file.write_text('{"auths": {')
    for work in (machine.credentials().store("ghcr.io", Credential("a", "b")), machine.credentials().erase("ghcr.io")):
        with pytest.raises(CredentialsError, match="not valid JSON"):
            await work
    assert machine.docker_file.read_text() == '{"auths": {'


async def test_a_folder_that_takes_no_file_is_named_and_left_clean(machine: Machine):
    (machine.root / "file").write_text("")
    folder = machine.root / "file" / "docker"
    with pytest.raises(CredentialsError, match=rf"^{folder}/config\.json cannot be written: not a directory$"):
        await machine.credentials(DOCKER_CONFIG=str(folder)).store("ghcr.io", Credential("a", "b"))


async def test_a_helper_is_asked_before_the_file(machine: Machine):
    machine.helper("one")
    machine.helper("two")
    machine.docker({
        "credHelpers": {"ghcr.io": "one"}, "credsStore": "two", "auths": {"ghcr.io": basic("plain"), "q.io": basic("q")}
    })  # fmt: skip
    machine.keep("one", "ghcr.io", "alice", "pw")
    machine.keep("two", "https://index.docker.io/v1/", "bob", "pw")
    assert await machine.credentials().find("ghcr.io", "a") == Credential("alice", "pw")
    assert await machine.credentials().find("docker.io", "a") == Credential("bob", "pw")
    assert await user(machine, "q.io") == "q"  # what the helper does not have may stand in the file
    assert await user(machine, "x.io") is None


async def test_a_helper_is_asked_once_for_each_server(machine: Machine):
    machine.helper("one")
    machine.docker({"credsStore": "one"})
    machine.keep("one", "ghcr.io", "alice", "pw")
    credentials = machine.credentials()
    await asyncio.gather(*(credentials.find("ghcr.io", f"a/{n}") for n in range(5)))
    assert await credentials.find("quay.io", "a") is None
    assert machine.calls("one") == ["get ghcr.io", "get quay.io"]


async def test_what_is_remembered_of_helpers_is_bounded(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("client.access.credentials._REMEMBERED", 1)
    machine.helper("one")
    machine.docker({"credsStore": "one"})
    credentials = machine.credentials()
    for host in ("a.io", "b.io", "b.io", "a.io"):
        await credentials.find(host, "")
    assert machine.calls("one") == ["get a.io", "get b.io", "get a.io"]


async def test_login_and_logout_go_through_the_helper(machine: Machine):
    machine.helper("one")
    machine.docker({"credsStore": "one", "auths": {"https://index.docker.io/v1/": basic("plain")}})
    credentials = machine.credentials()
    kept = await credentials.store("docker.io", Credential("alice", "s3cret"))
    assert kept == Kept("docker-credential-one", plain=False)
    assert json.loads(machine.docker_file.read_text())["auths"] == {"https://index.docker.io/v1/": {}}
    assert await credentials.find("docker.io", "a") == Credential("alice", "s3cret")
    assert await credentials.erase("docker.io") == ("docker-credential-one",)
    assert await credentials.erase("docker.io") == ()
    assert await credentials.find("docker.io", "a") is None
    assert json.loads(machine.docker_file.read_text()) == {"credsStore": "one", "auths": {}}


async def test_a_missing_helper_is_named_with_the_file_that_wants_it(machine: Machine):
    machine.docker({"credsStore": "desktop"})
    with pytest.raises(
        CredentialsError, match=r"^docker-credential-desktop, which .*/config\.json names, is not on PATH$"
    ):
        await machine.credentials().find("docker.io", "a")


async def test_a_given_credential_is_for_everything():
    assert await Given(Credential("a", "b")).find("x", "y") == Credential("a", "b")
