"""Registries that have some keys and lack others; each is started when a test first asks for it."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

import yaml
from typer.testing import CliRunner

from registry.cli import app
from tests.support.authority import Authority
from tests.support.callers import basic, htpasswd
from tests.support.deployments import Client, Deployment, free_ports
from tests.support.images import Answer, push_image_on
from tests.support.receiver import Receiver
from tests.support.tokens import Certified, certify, jwk, jwks, key

Config = Mapping[str, Any]
ALICE, BOB = basic("alice", "secret"), basic("bob", "other")
HIDDEN = "hush-hush"
"""No log, and no message, ever says so."""


class Place:
    """A registry of one file."""

    def __init__(self, name: str, config: Config, world: World) -> None:
        self.name = name
        self.config = config
        self.world = world
        self.file = world.folder / f"{name}.yml"
        self.file.write_text(yaml.safe_dump(dict(config)))

    @cached_property
    def server(self) -> Deployment:
        """The registry, which serves."""
        port = int(self.config["http"]["addr"].rpartition(":")[2])
        made = Deployment(self.file, port, log=self.world.folder / f"{self.name}.log")
        self.world.started(made)
        return made

    @property
    def root(self) -> Path:
        return Path(self.config["storage"]["filesystem"]["rootdirectory"])

    def client(self, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> Client:
        return Client(self.server.host, headers=headers, tls=tls)

    def ask(self, method: str, path: str, **headers: str) -> Answer:
        """One request, by somebody who may."""
        with self.client(self._known) as client:
            return client.ask(method, path, **headers)

    def push(self, repository: str) -> str:
        """Pushes an image whose layer is nowhere else, and returns its digest."""
        with self.client(self._known) as client:
            return push_image_on(client, repository, "1", [f"{self.name} {repository}".encode()])

    def debug(self, path: str) -> Answer:
        """What the debug address says of a path."""
        _ = self.server
        with Client(self.config["http"]["debug"]["addr"]) as client:
            return client.ask("GET", path)

    def command(self, *words: str) -> str:
        """What a command of `registry` prints about this file."""
        ended = CliRunner().invoke(app, [*words, str(self.file)])
        assert ended.exit_code == 0, ended.output
        return ended.output

    def refused(self) -> str:
        """What `registry serve` says of a file that it does not serve by."""
        ended = CliRunner().invoke(app, ["serve", str(self.file)])
        assert ended.exit_code == 1, ended.output
        assert all(line.startswith("registry: ") for line in ended.output.splitlines()), ended.output
        assert HIDDEN not in ended.output
        return ended.output

    @property
    def _known(self) -> Mapping[str, str]:
        if "htpasswd" not in self.config.get("auth", {}):
            return {}
        return BOB if self.name == "second" else ALICE


class World:
    """All places, and whom they meet."""

    def __init__(self, folder: Path, ending: ExitStack) -> None:
        self.folder = folder
        self._ending = ending
        self._servers: list[Deployment] = []
        self.receiver = Receiver()
        ending.callback(self.receiver.stop)
        self.certificate: Certified = certify("tokens")
        self.rsa_certificate: Certified = certify("tokens by RSA", private=key("RSA2048"))
        self._write()
        given = Template(Path(__file__).with_suffix(".yml").read_text())
        names = given.get_identifiers()
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        own = {"folder": folder, "receiver": self.receiver.url, "hidden": HIDDEN}
        places = yaml.safe_load(given.substitute(ports | own))
        self._places = {name: Place(name, each, self) for name, each in places.items()}

    def __getitem__(self, name: str) -> Place:
        return self._places[name]

    def _write(self) -> None:
        self.authority = Authority(self.folder)
        self.authority.make("server", "server")
        htpasswd(self.folder / "htpasswd", alice="secret")
        self.others = htpasswd(self.folder / "passwords of others", bob="other")
        (self.folder / "bundle.pem").write_bytes(self.certificate.pem + self.rsa_certificate.pem)
        jwks(self.folder / "jwks.json", jwk(key(), "one"), jwk(key("RSA2048"), "two"))

    def started(self, server: Deployment) -> None:
        self._ending.callback(server.kill)
        server.start()
        self._servers.append(server)

    def end(self) -> list[Deployment]:
        """Ends every registry that runs, all at once, and returns them; each has to end well."""
        for each in self._servers:
            os.kill(each.pid, signal.SIGTERM)
        assert {each.wait() for each in self._servers} <= {0}
        return self._servers
