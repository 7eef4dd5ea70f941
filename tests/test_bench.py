"""The benchmarks still run, and say what they measured."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench import report
from bench.auth import rows as rows_of_auth
from bench.client.clients import Client, Cost, Pullclient
from bench.client.image import Image, Layer, push
from bench.client.measure import Goal, Job, Row, figures, measure
from bench.client.report import BEGIN, cells, facts
from bench.client.servers import Relay
from bench.load import Connection
from bench.mirror.__main__ import cells as cells_of_mirror
from bench.mirror.measure import Result
from bench.mirror.servers import link
from bench.servers import Ours
from tests.support.source import ROOT

PULLS = ["8 layers, 2 MB", "one layer, 3 MB", "one layer, 1 MB, far away"]
TINY = ["--runs", "2", "--image", "2", "--layer", "3", "--far", "1"]


def test_it_measures_ours_without_any_peer(tmp_path: Path) -> None:
    small = ["--runs", "1", "--large", "2", "--upload", "2", "--volume", "4", "--seconds", "0.1"]
    command = [sys.executable, "-m", "bench", *small, "--peers", "none", "--folder", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("| ") and "no peer" in line]
    assert rows == [
        "large blob GET, CPU s/GB",
        "upload: POST, PATCH, PUT, CPU s/GB",
        "manifest GET by tag, requests/CPU s",
        "manifest GET by digest, requests/CPU s",
        "5 KB blob GET, requests/CPU s",
    ]
    assert list(tmp_path.iterdir()) == []


def test_it_measures_what_it_costs_to_know_who_asks(tmp_path: Path) -> None:
    words = ["--quick", "--seconds", "0.1", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "bench.auth", *words]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["without", "htpasswd and rules", "bearer token and rules"]
    assert all(float(row[1].replace(",", "")) > 0 for row in rows)
    assert [bool(row[2]) for row in rows] == [False, True, True]
    assert list(tmp_path.iterdir()) == []


def test_the_cost_of_knowing_who_asks_is_told_round_by_round() -> None:
    figures = {"without": [100.0, 10.0, 100.0], "htpasswd and rules": [90.0, 8.5, 60.0], "bearer": [50.0, 5.0, 100.0]}
    assert list(rows_of_auth(figures)) == [
        ["without", "100", "", "", ""],
        ["htpasswd and rules", "60", "0.85", "≥ 0.8 x without", "reached"],
        ["bearer", "50", "0.50", "≥ 0.8 x without", "missed"],
    ]


@pytest.mark.peer("docker-registry")
def test_it_measures_pages_of_long_lists(tmp_path: Path) -> None:
    words = ["--quick", "--entries", "450", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "bench.lists", *words]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in told.splitlines() if line.startswith("| 450")]
    assert [row[1].strip() for row in rows] == [
        f"450 {what}, {page}, {when}: ms"
        for when in ("after the start", "again")
        for what in ("repositories", "tags")
        for page in ("the first page", "one in the middle")
    ]
    for row in rows:
        assert float(row[2]) > 0
        assert float(row[3]) > 0
        assert row[5].strip() in ("reached", "missed")
    assert list(tmp_path.iterdir()) == []


MIRRORED = ["--quick", "--seconds", "0.1", "--large", "2", "--volume", "4", "--images", "2", "--image", "2"]


@pytest.mark.peer("iproute")
def test_it_measures_the_mirror(tmp_path: Path) -> None:
    words = [*MIRRORED, "--peers", "none", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "bench.mirror", *words]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split("|") for line in told.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows] == [
        "large blob GET, warm: CPU µs/MB",
        "manifest GET by tag, warm: CPU µs",
        "manifest GET by digest, warm: CPU µs",
        "5 KB blob GET, warm: CPU µs",
        "first byte of a blob, cold, far away: ms",
        "first byte of a blob, cold, on loopback: ms",
        "one cold pull of 2 MB over 200 Mbit/s: s",
        "20 at once: s",
    ]
    assert all(float(row[3].replace(",", "")) > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer("iproute")
def test_a_link_goes_away_whatever_happens_on_it() -> None:
    def spaces() -> str:
        return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout

    def broken() -> None:
        with link("200mbit") as made:
            assert made.namespace in spaces()
            raise RuntimeError("in the middle")

    before = spaces()
    with pytest.raises(RuntimeError, match="in the middle"):
        broken()
    assert f"lhbench-{os.getpid()}" not in before + spaces()


def test_what_was_given_up_is_said() -> None:
    result = Result("20 at once: s", {"mirror": [4.0], "docker-registry": [None]}, 1.2, 1.15)
    assert cells_of_mirror(result) == ["20 at once: s", "-", "4.0", "given up", "1.20", "≤ 1.15", "missed"]


def path_of(layer: Layer) -> str:
    return f"/v2/bench/pulled/blobs/{layer.digest}"


def client_bench(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "bench.client", *TINY, "--folder", str(folder), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_it_measures_our_client_without_any_peer(tmp_path: Path) -> None:
    told = [line.split("|") for line in client_bench(tmp_path, "--peers", "none").splitlines() if line[:2] == "| "][1:]
    assert [cell[1].strip() for cell in told] == [
        *(f"{name}: {unit}" for name in PULLS for unit in ("s", "CPU s")),
        "all of it there already: s",
        "`--help`: s",
        "most memory in any run: MB",
    ]
    assert [float(cell[2]) > 0 for cell in told] == [True] * 9
    assert [cell[8].strip() for cell in told[:6]] == ["no peer"] * 5 + [""]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.peer("skopeo", "docker")
def test_it_measures_our_client_beside_its_peers(tmp_path: Path) -> None:
    told = client_bench(tmp_path, "--peers", "skopeo", "docker", "--rows", "8 layers")
    wall, cpu, memory = [line.split("|") for line in told.splitlines() if line[:2] == "| "][1:]
    for row in (wall, cpu):
        ours, skopeo, crane, docker, ratio = row[2:7]
        assert all(float(figure) > 0 for figure in (ours, skopeo, docker, ratio))
        assert crane.strip() == "-"
        assert row[8].strip() in ("reached", "missed")
    assert memory[5].strip() == "-"
    assert list(tmp_path.iterdir()) == []


def test_a_layer_is_a_gzipped_archive_with_the_digests_it_is_said_to_have(tmp_path: Path) -> None:
    sizes = [70_000, 1_500_000]
    with Ours(tmp_path / "server", tmp_path / "root") as server, Connection(server.port) as connection:
        image = push(server.port, "some", sizes, seed=3)
        for layer, size in zip(image.layers, sizes, strict=True):
            status, _, body = connection.ask("GET", path_of(layer))
            assert (status, len(body)) == (200, layer.size)
            assert f"sha256:{hashlib.sha256(gzip.decompress(body)).hexdigest()}" == layer.diff_id
            with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
                assert [member.size for member in archive] == [size]


def test_the_relay_carries_every_byte_both_ways(tmp_path: Path) -> None:
    with Ours(tmp_path / "server", tmp_path / "root") as server, Relay(tmp_path / "relay", server.port) as relay:
        layer = push(relay.port, "some", [1_000_000], seed=0).layers[0]
        with Connection(relay.port) as connection:
            status, _, body = connection.ask("GET", path_of(layer))
        assert (status, f"sha256:{hashlib.sha256(body).hexdigest()}") == (200, layer.digest)


def test_the_relay_outlives_connections_that_break(tmp_path: Path) -> None:
    with Ours(tmp_path / "server", tmp_path / "root") as server, Relay(tmp_path / "relay", server.port) as relay:
        layer = push(server.port, "some", [8_000_000], seed=0).layers[0]
        with Connection(relay.port) as connection:
            connection.socket.sendall(connection.head("GET", path_of(layer)))
            connection.socket.recv(1)
        with Connection(relay.port) as connection:
            assert connection.ask("GET", "/v2/")[0] == 200
    with Relay(tmp_path / "to-nobody", server.port) as relay, Connection(relay.port) as connection:
        with pytest.raises(ConnectionError, match="the server closed the connection"):
            connection.answer()
        assert (tmp_path / "to-nobody" / "log").read_text().count("\n") == 1


class Pretending(Client):
    """One that does nothing, well."""

    name = "pretending"

    @classmethod
    def program(cls) -> str:
        return "/bin/true"


def test_a_client_that_ends_well_without_the_image_is_found_out(tmp_path: Path) -> None:
    image = Image("some", (Layer("sha256:" + "0" * 64, "sha256:" + "1" * 64, 5),))
    job = Job("nothing", lambda _: [], image, fresh=True, clients=("pretending",))
    with pytest.raises(RuntimeError, match="pretending ended well, and does not hold what it pulled"):
        measure(job, [Pretending(tmp_path / "client")], rounds=1)


def test_a_client_that_fails_is_quoted(tmp_path: Path) -> None:
    class Failing(Pretending):
        @classmethod
        def program(cls) -> str:
            return "/bin/ls"

    with pytest.raises(RuntimeError, match=r"(?s)pretending ended with 2:.*no-such-file"):
        Failing(tmp_path / "client").run(["no-such-file"])


JOB = Job("pulled", lambda _: [])


def test_ratios_are_of_pairs_within_a_round() -> None:
    row = Row("pulled: s", "wall", Goal(0.8, "skopeo"), JOB)
    measured = {"pullclient": [1.0, 4.0, 9.0], "skopeo": [2.0, 4.0, 10.0]}
    assert cells(row, measured) == ["pulled: s", "4.00", "4.00", "-", "-", "0.90", "≤ 0.8 x skopeo", "missed"]
    assert cells(row, {"pullclient": [1.0], "skopeo": [2.0]})[5:] == ["0.50", "≤ 0.8 x skopeo", "reached"]
    assert cells(row, {"pullclient": [1.0]})[5:] == ["", "≤ 0.8 x skopeo", "no peer"]


def test_a_goal_without_a_peer_is_of_the_figure() -> None:
    row = Row("pulled: s", "wall", Goal(0.25), JOB)
    measured = {"pullclient": [0.1, 0.2, 9.0], "docker": [1.0]}
    assert cells(row, measured) == ["pulled: s", "0.20", "-", "-", "1.00", "", "≤ 0.25", "reached"]
    assert cells(row, {"pullclient": [0.3]})[7] == "missed"


def test_memory_is_the_most_of_any_run_of_any_job() -> None:
    costs = {"pulled": {"pullclient": [Cost(1, 1, 30_000_000)], "docker": [Cost(1, 1, None)]},
             "again": {"pullclient": [Cost(1, 1, 121_000_000), Cost(1, 1, 20_000_000)]}}  # fmt: skip
    row = Row("memory", "memory", Goal(120))
    assert figures(row, costs) == {"pullclient": [121.0]}
    assert cells(row, figures(row, costs))[1:] == ["121", "-", "-", "-", "", "≤ 120", "missed"]
    assert figures(Row("pulled: s", "wall", None, JOB), costs) == {"pullclient": [1], "docker": [1]}


def test_its_figures_stand_between_marks_of_their_own(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text((ROOT / "docs" / "performance.md").read_text())
    registry, client = document.read_text().split("## The client")
    report.write(document, "new figures", BEGIN)
    assert document.read_text().split("## The client")[0] == registry
    assert f"{BEGIN}\n\nnew figures\n\n{report.END}" in document.read_text()
    assert document.read_text().endswith(client.split(report.END)[1])


def test_the_report_says_who_was_missing() -> None:
    told = facts({Pullclient.name: "1", "crane": None}, 5, "is quick")
    assert "5 rounds. Through the relay, one connection is quick." in told
    assert "pullclient 1; crane not installed." in told
