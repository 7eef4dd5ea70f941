"""`python -m bench.auth`: what it costs a request that its sender is known, and that he may."""

from __future__ import annotations

import argparse
import json
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench import report
from bench.content import REPOSITORY, Content, push
from bench.load import Connection
from bench.measure import ACCEPTED, CONNECTIONS, Row, Sizes, measure
from bench.servers import Ours, Server

BEGIN = "<!-- measured by python -m bench.auth --write -->"
HEADINGS = ("manifest GET by tag", "requests/CPU s", "ratio", "goal", "")
GOAL = 0.8
_DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
_USER, _PASSWORD = "alice", "correct horse"
# As a registry with teams has it; the rule that fits is in the middle.
_RULES = [
    {"who": "group:operators", "allow": ["pull", "push", "delete", "admin"]},
    {"who": "anyone", "deny": ["push", "delete"], "repositories": "*/releases/**"},
    *(
        {"who": f"group:team-{number}", "allow": ["pull", "push"], "repositories": f"team-{number}/**"}
        for number in range(8)
    ),
    {"who": "robot:ci", "allow": ["pull", "push"], "repositories": "team-1/app"},
    {"who": f"user:{_USER}", "allow": ["pull", "push"], "repositories": "bench/**"},
    {"who": "authenticated", "allow": "pull", "repositories": "base/*"},
]
_GROUPS = {"operators": "user:olga", **{f"team-{number}": [f"user:u{number}"] for number in range(8)}}


class Guarded(Ours):
    """One of ours that everybody may push to, and pull from without a name.

    Attributes:
        headers: what a client sends that may pull.
    """

    name = "without"
    layerhouse: Mapping[str, Any] = {}
    auth: Mapping[str, Any] = {}

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__(folder, root)
        self.headers: list[tuple[str, str]] = []

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "config.yml"
        storage = {"filesystem": {"rootdirectory": str(self.root)}}
        layerhouse = {"statedirectory": str(self.folder / "state"), **self.layerhouse}
        given = {"version": 0.1, "storage": storage, "auth": self._auth(), "layerhouse": layerhouse}
        config.write_text(json.dumps({name: value for name, value in given.items() if value}))
        return [*super().command()[:4], config, "--addr", "127.0.0.1:0"]

    def log_in(self) -> None:
        """Finds out what to send."""

    def _auth(self) -> Mapping[str, Any]:
        return {}


class ByPassword(Guarded):
    """Asks for a name and a password with each request, and looks into access rules."""

    name = "htpasswd and rules"
    layerhouse: Mapping[str, Any] = {"access": {"groups": _GROUPS, "rules": _RULES}}

    def _auth(self) -> Mapping[str, Any]:
        from registry.auth.passwords import hash_password

        passwords = self.folder / "htpasswd"
        passwords.write_text(f"{_USER}:{hash_password(_PASSWORD)}\n")
        return {"htpasswd": {"realm": "bench", "path": str(passwords)}}

    def log_in(self) -> None:
        self.headers = [_basic()]


class ByToken(ByPassword):
    """The same, which gives tokens for a password, and takes those."""

    name = "bearer token and rules"
    layerhouse: Mapping[str, Any] = {**ByPassword.layerhouse, "tokens": {"enabled": True, "lifetime": "24h"}}

    def log_in(self) -> None:
        with Connection(self.port) as connection:
            path = f"/auth/token?service=layerhouse&scope=repository:{REPOSITORY}:pull"
            status, _, body = connection.ask("GET", path, [_basic()])
        if status != 200:
            raise ConnectionError(f"no token: {status} {body[:200]!r}")
        self.headers = [("Authorization", f"Bearer {json.loads(body)['token']}")]


KINDS: tuple[type[Guarded], ...] = (Guarded, ByPassword, ByToken)


def main() -> None:
    options = _options()
    sizes = Sizes(options.runs, 0, 0, 0, options.seconds)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder, ExitStack() as ending:
        figures = _measure(Path(folder), ending, sizes)
    told = f"{report.today()}. {sizes.runs} rounds.\n{Ours.name} {Ours.version()}.\n{report.machine()}."
    measured = f"{told}\n\n{report.aligned([list(HEADINGS), *rows(figures)])}"
    print(measured)
    if options.write:
        report.write(_DOCUMENT, measured, BEGIN)


def _measure(folder: Path, ending: ExitStack, sizes: Sizes) -> dict[str, list[float]]:
    with Ours(folder / "pushed", folder / "root") as filling:
        content = push(filling.port, 0)
    servers = [ending.enter_context(kind(folder / kind.name, folder / "root")) for kind in KINDS]
    for each in servers:
        each.log_in()

    def job(server: Server) -> dict[str, Any]:
        headers = ACCEPTED + (server.headers if isinstance(server, Guarded) else [])
        return {"kind": "requests", **_asked(content), "headers": headers, "seconds": sizes.seconds}

    row = Row(HEADINGS[0], False, KINDS[0].name, GOAL, job, tuple(kind.name for kind in KINDS[1:]))
    return measure(row, servers, sizes)


def _asked(content: Content) -> dict[str, Any]:
    paths = [f"/v2/{REPOSITORY}/manifests/{image.tag}" for image in content.images]
    return {"paths": paths, "digests": [image.digest for image in content.images], "connections": CONNECTIONS}


def rows(figures: Mapping[str, list[float]]) -> Iterator[list[str]]:
    """Yields the table's rows: each ratio is the median of those within a round."""
    without = figures[KINDS[0].name]
    for kind, measured in figures.items():
        shown = [kind, f"{median(measured):,.0f}"]
        if measured is without:
            yield [*shown, "", "", ""]
            continue
        ratio = median(mine / theirs for mine, theirs in zip(measured, without, strict=True))
        yield [*shown, f"{ratio:.2f}", f"≥ {GOAL:g} x {KINDS[0].name}", "reached" if ratio >= GOAL else "missed"]


def _basic() -> tuple[str, str]:
    return "Authorization", "Basic " + b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.auth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: whether it works, not how well")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--runs", type=int, help="rounds (9)")
    parser.add_argument("--seconds", type=float, help="how long each run asks (3)")
    parser.add_argument("--folder", type=Path, help="where some MB may lie for the time (the system's)")
    given = parser.parse_args()
    for name, value in ({"runs": 1, "seconds": 0.5} if given.quick else {"runs": 9, "seconds": 3.0}).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


if __name__ == "__main__":
    main()
