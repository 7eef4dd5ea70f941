"""One tree, two registries: pushed, deleted from and collected by either, then served by both.

Everything is done in one tree by each pair of a registry that pushes and one that deletes; then each way of collecting
gets a copy of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from registry.cli import app
from tests.support.docker import DockerEngine
from tests.support.images import (
    ACCEPT,
    CONFIG,
    DOCKER_LIST,
    MANIFEST,
    RefusedError,
    Wire,
    pull_image,
    push_image,
    push_index,
    push_parts,
    sha256,
    tar_layer,
)
from tests.support.processes import DistributionProcess, RegistryProcess, Server, run

pytestmark = pytest.mark.peer("docker-registry")

OURS, THEIRS = "ours", "theirs"
SHARED = tar_layer("shared", b"in every image" * 1000)
REAL = "real/web-ping"

# Ways of collecting, each a row of collections. docker-registry's -m takes the children of indexes and all referrers,
# so there only what it does soundly is asked for.
WAYS = {
    "ours": [(OURS, False)],
    "ours -m": [(OURS, True)],
    "theirs": [(THEIRS, False)],
    "theirs -m": [(THEIRS, True)],
    "in turns": [(THEIRS, False), (OURS, True), (THEIRS, False), (OURS, False)],
}


@dataclass
class Group:
    """What one registry pushed and one deleted, under one name. All values are (repository, reference).

    Attributes:
        tagged: images under tags.
        indexes: under tags, whose children bear none.
        signatures: (subject, referrer) of live images.
        untagged: images that were tagged once.
        deleted: manifests that were deleted, and what depended on them.
        orphans: referrers of what was deleted.
        lost: blobs that only deleted images needed.
    """

    tagged: list[tuple[str, str]] = field(default_factory=list)
    indexes: list[tuple[str, str]] = field(default_factory=list)
    signatures: list[tuple[str, str, str]] = field(default_factory=list)
    untagged: list[tuple[str, str]] = field(default_factory=list)
    deleted: list[tuple[str, str]] = field(default_factory=list)
    orphans: list[tuple[str, str]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Tree:
    """A tree on disk, with what each group did in it and what every manifest looked like before anything was collected.

    Attributes:
        seen: (repository, reference) → media type, body and digests of all parts.
    """

    root: Path
    groups: dict[str, Group] = field(default_factory=dict)
    seen: dict[tuple[str, str], Any] = field(default_factory=dict)


def layer(group: str, name: str) -> bytes:
    return tar_layer(name, f"{name} of {group}".encode() * 100)


def repositories(group: str) -> list[str]:
    return [f"{group}/{name}" for name in ("app", "multi", "emptied")]


def push(host: str, group: str) -> Group:
    made, (plain, multi, emptied) = Group(), repositories(group)
    for tag in ("1", "2", "latest"):
        push_image(host, plain, tag, [SHARED, layer(group, tag)])
    made.untagged.append((plain, digest_of(host, plain, "latest")))
    push_image(host, plain, "latest", [SHARED, layer(group, "newer")])
    made.tagged += [(plain, "1"), (plain, "latest")]
    for name, kind in (("kept", DOCKER_LIST), ("dropped", "application/vnd.oci.image.index.v1+json")):
        children = {each: child(host, group, multi, f"{name} {each}", each) for each in ("amd64", "arm64")}
        push_index(host, multi, name, children, media_type=kind)
    made.indexes.append((multi, "kept"))
    push_image(host, emptied, "only", [SHARED, layer(group, "only")])
    subject = digest_of(host, plain, "1")
    signature = sign(host, plain, subject, f"{group} signs 1")
    made.signatures += [
        (plain, subject, signature),
        (plain, signature, sign(host, plain, signature, f"{group} signs again")),
    ]
    made.orphans.append((plain, sign(host, plain, digest_of(host, plain, "2"), f"{group} signs 2")))
    return made


def delete(host: str, group: str, made: Group) -> None:
    plain, multi, emptied = repositories(group)
    dropped = pull_image(host, multi, "dropped")
    with Wire(host) as wire:
        children = [each["digest"] for each in json.loads(wire.manifest(multi, "dropped").body)["manifests"]]
        for repo, tag in ((plain, "2"), (multi, "dropped"), (emptied, "only")):
            digest = digest_of(host, repo, tag)
            wire.ask("DELETE", f"/v2/{repo}/manifests/{digest}", expect=202)
            made.deleted += [(repo, tag), (repo, digest)]
        for digest in children:
            wire.ask("DELETE", f"/v2/{multi}/manifests/{digest}", expect=202)
            made.deleted.append((multi, digest))
    made.lost += [(multi, each) for each in dropped if each not in (children[0], children[1], next(iter(dropped)))]
    made.lost += [(plain, sha256(layer(group, "2"))), (emptied, sha256(layer(group, "only")))]
    made.lost = [(repo, digest) for repo, digest in made.lost if digest != sha256(SHARED)]


def child(host: str, group: str, repo: str, name: str, architecture: str) -> str:
    """An image without a tag; returns its digest."""
    with Wire(host) as wire:
        manifest = push_parts(wire, repo, [SHARED, layer(group, name)], architecture=architecture)
        return wire.push_manifest(repo, sha256(json.dumps(manifest).encode()), manifest)


def sign(host: str, repo: str, subject: str, text: str) -> str:
    with Wire(host) as wire:
        config, body = wire.push_blob(repo, b"{}"), text.encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": {"mediaType": CONFIG, "digest": config, "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": wire.push_blob(repo, body), "size": len(body)}],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": len(wire.manifest(repo, subject).body)},
        }
        return wire.push_manifest(repo, sha256(json.dumps(manifest).encode()), manifest)


def digest_of(host: str, repo: str, tag: str) -> str:
    with Wire(host) as wire:
        return wire.manifest(repo, tag).headers["docker-content-digest"]


def look(host: str, repo: str, reference: str) -> Any:
    with Wire(host) as wire:
        manifest = wire.manifest(repo, reference)
    return manifest.headers["content-type"], manifest.body, pull_image(host, repo, reference)


def starting(kind: str, root: Path, log: Path) -> Server:
    made: Server = RegistryProcess(root, log=log) if kind == OURS else DistributionProcess(root, log=log)
    made.start()
    return made


class Pair:
    """Both registries on one tree."""

    def __init__(self, root: Path, logs: Path) -> None:
        self.servers: dict[str, Server] = {}
        self._root, self._logs = root, logs

    def __enter__(self) -> dict[str, str]:
        self._logs.mkdir(exist_ok=True)
        try:
            for kind in (OURS, THEIRS):
                self.servers[kind] = starting(kind, self._root, self._logs / f"{kind}.log")
        except BaseException:
            self.__exit__()
            raise
        return {kind: server.host for kind, server in self.servers.items()}

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.stop()


def collect(root: Path, kind: str, *, untagged: bool) -> str:
    options = ["-m"] if untagged else []
    if kind == OURS:
        ended = CliRunner().invoke(app, ["garbage-collect", "--root", str(root), "--grace-period", "0s", *options])
        assert ended.exit_code == 0, ended.output
        return ended.stdout
    config = root.with_suffix(".yml")
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n")
    return run("docker-registry", "garbage-collect", *options, str(config))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("round-trips")
    made = Tree(folder / "root")
    with Pair(made.root, folder / "logs") as hosts:
        for pusher, deleter in product(hosts, hosts):
            name = f"{pusher}-{deleter}"
            group = push(hosts[pusher], name)
            delete(hosts[deleter], name, group)
            made.groups[name] = group
            for kind in hosts:
                for each in everything_that_lives(group):
                    seen = look(hosts[kind], *each)
                    assert made.seen.setdefault(each, seen) == seen
    return made


def everything_that_lives(group: Group) -> Iterator[tuple[str, str]]:
    yield from (*group.tagged, *group.indexes, *group.untagged, *group.orphans)
    yield from ((repo, referrer) for repo, _, referrer in group.signatures)


@pytest.mark.parametrize("way", WAYS)
def test_what_lives_is_whole_and_what_was_deleted_stays_gone(tree: Tree, way: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(tree.root, root)
    for kind, untagged in WAYS[way]:
        collect(root, kind, untagged=untagged)
    with Pair(root, tmp_path / "logs") as hosts:
        for name, group in tree.groups.items():
            for host in hosts.values():
                check(tree, group, host, way)
            check_referrers(hosts[OURS], group, way)
            check_pushes(hosts, name)
        assert catalog(hosts[OURS]) == catalog(hosts[THEIRS])
    if way not in {"ours -m", "theirs"}:
        return
    # What was pushed again, and the rest, outlives the other's collection too.
    collect(root, THEIRS if WAYS[way][-1][0] == OURS else OURS, untagged=False)
    with Pair(root, tmp_path / "logs") as hosts:
        for name, group in tree.groups.items():
            for host in hosts.values():
                check(tree, group, host, way, pushed_again=True)
                pull_image(host, f"{name}/emptied", "only")


def check(tree: Tree, group: Group, host: str, way: str, *, pushed_again: bool = False) -> None:
    lives, gone = list(group.tagged), [] if pushed_again else [*group.deleted]
    collected = [*group.untagged, *group.orphans]
    if way == "theirs -m":
        collected += [(repo, referrer) for repo, _, referrer in group.signatures]
    else:
        lives += [*group.indexes, *((repo, referrer) for repo, _, referrer in group.signatures)]
    if way in {"ours", "theirs"}:
        lives += collected
    else:
        gone += collected
    for each in lives:
        assert look(host, *each) == tree.seen[each]
    with Wire(host) as wire:
        for repo, reference in gone:
            assert wire.ask("GET", f"/v2/{repo}/manifests/{reference}", Accept=ACCEPT).status == 404
        for repo, digest in () if pushed_again else group.lost:
            with pytest.raises(RefusedError, match=f"404 GET {repo}@"):
                wire.blob(repo, digest)


def check_referrers(host: str, group: Group, way: str) -> None:
    """What of referrers another registry removed, ours no longer shows."""
    with Wire(host) as wire:
        for repo, subject, referrer in group.signatures:
            answer = wire.ask("GET", f"/v2/{repo}/referrers/{subject}", expect=200)
            listed = [each["digest"] for each in json.loads(answer.body)["manifests"]]
            assert listed == ([] if way == "theirs -m" else [referrer])


def check_pushes(hosts: dict[str, str], name: str) -> None:
    """What was deleted is pushed again, to either, and is whole on both: nobody believes that a blob is still there."""
    for kind, host in hosts.items():
        for repo, tag in ((f"{name}/emptied", "only"), (f"{name}/app", f"2-{kind}"), (f"{name}/new-{kind}", "1")):
            source = {"only": "only", "1": "2"}.get(tag, "2")
            digest = push_image(host, repo, tag, [SHARED, layer(name, source)])
            for other in hosts.values():
                assert next(iter(pull_image(other, repo, tag))) == digest


def catalog(host: str) -> list[str]:
    with Wire(host) as wire:
        return sorted(json.loads(wire.ask("GET", "/v2/_catalog?n=1000", expect=200).body)["repositories"])


@pytest.mark.peer("docker", "busybox")
@pytest.mark.parametrize("collector", [OURS, THEIRS])
def test_docker_gets_the_same_files_after_a_collection(
    docker_engine: DockerEngine, busybox_image: str, tmp_path: Path, collector: str
) -> None:
    root = tmp_path / "root"
    words = ["run", "--rm", "--network", "none"]
    sums = ["/bin/busybox", "sha256sum", "/bin/busybox", "/etc/motd"]
    expected = docker_engine(*words, busybox_image, *sums)
    with Pair(root, tmp_path / "logs") as hosts:
        for kind, host in hosts.items():
            name = f"{host}/{REAL}:{kind}"
            docker_engine("tag", busybox_image, name)
            docker_engine("push", name)
            docker_engine("rmi", name)
            digest = push_image(host, REAL, "gone", [layer(kind, "gone")])
            with Wire(host) as wire:
                wire.ask("DELETE", f"/v2/{REAL}/manifests/{digest}", expect=202)
    assert "eligible" in collect(root, collector, untagged=True)
    with Pair(root, tmp_path / "logs") as hosts:
        for kind, other in ((OURS, THEIRS), (THEIRS, OURS)):
            name = f"{hosts[other]}/{REAL}:{kind}"
            docker_engine("rmi", "--force", busybox_image)
            assert "Pull complete" in docker_engine("pull", name)
            docker_engine("tag", name, busybox_image)
            assert docker_engine(*words, name, *sums) == expected
            docker_engine("rmi", name)
