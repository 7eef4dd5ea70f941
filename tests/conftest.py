"""Fixtures that every floor may use. Real peers are asked for with `@pytest.mark.peer("docker")`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.docker import DockerEngine
from tests.support.peers import missing, require_peers
from tests.support.processes import DistributionProcess, RegistryProcess, Server

# Property tests take the time they take: a busy machine is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Under pytest-xdist a test runs in another process: what it tells travels with its report.
TOLD = "told"
told = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    reasons = [missing(peer) for mark in item.iter_markers("peer") for peer in mark.args]
    if reason := "; ".join(filter(None, reasons)):
        if require_peers():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[told] = []


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(report: Any, config: pytest.Config) -> Iterator[Any]:
    if report.when == "call":
        config.stash[told].extend(line for name, line in report.user_properties if name == TOLD)
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in dict.fromkeys(config.stash[told]):
        terminalreporter.write_line(line)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a measured figure: it stands above the closing line of the run, also when everything passed."""
    return lambda line: request.node.user_properties.append((TOLD, line))


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for much data, which does not outlast the test (pytest keeps tmp_path of the last runs)."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _server(server: Server, ending: ExitStack) -> None:
    ending.callback(lambda: print(server.log()))
    ending.callback(server.stop)
    server.start()


@pytest.fixture
def registry_server(tmp_path: Path) -> Iterator[Callable[..., RegistryProcess]]:
    """Start `registry serve`, on a fresh root unless told; arguments as RegistryProcess. All end with the test."""
    with ExitStack() as ending:

        def start(root: Path | None = None, **options: Any) -> RegistryProcess:
            name = f"registry-{len(list(tmp_path.glob('registry-*.log')))}"
            server = RegistryProcess(root or tmp_path / name, log=tmp_path / f"{name}.log", **options)
            _server(server, ending)
            return server

        yield start


@pytest.fixture
def distribution(tmp_path: Path) -> Iterator[Callable[[Path], DistributionProcess]]:
    """Start Debian's docker-registry on a root. All end with the test."""
    with ExitStack() as ending:

        def start(root: Path) -> DistributionProcess:
            count = len(list(tmp_path.glob("distribution-*.log")))
            server = DistributionProcess(root, log=tmp_path / f"distribution-{count}.log")
            _server(server, ending)
            return server

        yield start


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A real Docker engine for the whole run; call it with the words of a docker command."""
    with DockerEngine() as engine:
        yield engine


@pytest.fixture(scope="session")
def busybox_image(docker_engine: DockerEngine) -> str:
    """Name of a small real image in the engine, whose container prints `TARGET=…` (blog.sixeyed.com unless told)."""
    return docker_engine.build_busybox("layerhouse-test/busybox:1")
