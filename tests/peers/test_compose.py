"""The container takes the place of registry:2: same port, same volume, and not as root."""

from __future__ import annotations

import json
import re

import yaml

from tests.support.processes import REPOSITORY_ROOT

DATA = "/var/lib/registry"


def last_stage() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile's last stage."""
    joined = re.sub(r"\\\n", "", (REPOSITORY_ROOT / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in joined.splitlines() if line and not line.startswith("#")]
    start = max(number for number, line in enumerate(lines) if line[0] == "FROM")
    return [(line[0], line[1]) for line in lines[start:]]


def test_compose_serves_on_port_5000_and_keeps_the_data_in_a_volume() -> None:
    compose = yaml.safe_load((REPOSITORY_ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["registry"]
    assert service["build"] == "."
    assert service["ports"] == ["5000:5000"]
    volume, _, target = service["volumes"][0].partition(":")
    assert (volume in compose["volumes"], target) == (True, DATA)


def test_the_image_has_the_port_the_volume_and_the_command_of_registry_2_and_is_not_root() -> None:
    stage = dict(last_stage())
    assert (stage["EXPOSE"], stage["VOLUME"], stage["USER"]) == ("5000", DATA, "layerhouse")
    command = json.loads(stage["ENTRYPOINT"]) + json.loads(stage["CMD"])
    assert command == ["/entrypoint", "serve"]
    assert stage["ENV"].endswith("=/etc/distribution/config.yml:/etc/docker/registry/config.yml")
    settings = yaml.safe_load((REPOSITORY_ROOT / "container" / "config.yml").read_text())
    assert (settings["storage"]["filesystem"]["rootdirectory"], settings["http"]["addr"]) == (DATA, ":5000")


def test_the_container_installs_the_versions_the_tests_ran_with() -> None:
    pin = re.compile(r"^\S+==\S+", re.MULTILINE)
    tested = set(pin.findall((REPOSITORY_ROOT / "requirements.lock").read_text()))
    for name in ("runtime", "build"):
        assert set(pin.findall((REPOSITORY_ROOT / "requirements" / f"{name}.lock").read_text())) <= tested
