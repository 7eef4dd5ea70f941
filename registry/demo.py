"""`registry demo`: a sample image goes into a registry and comes out again, before the user's eyes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from client.caching.cache import Cache, Variant
from client.display import Style, shown, size_text
from client.session import Session
from client.transfers.pulling import Options, pull_in
from client.transfers.pushing import push_in
from ocispec.digest import Digest, Verifier
from ocispec.errors import CacheError, StorageError
from ocispec.platform import Platform
from ocispec.reference import Reference
from registry import sample
from storage.threads import finish

# It speaks to a terminal.
# ruff: noqa: T201

_PORT = 5000
_STARTS_WITHIN = 30.0
_ENDS_WITHIN = 10.0
_LISTENING = "listening on http://"
_PIECE = 1024 * 1024


def demo(*, once: bool) -> None:
    """Shows it all in a temporary folder, which is gone afterwards.

    Args:
        once: end after the pull, instead of serving until Ctrl-C.

    Raises:
        LayerhouseError: something did not work.
    """
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="registry-demo-") as folder:
        asyncio.run(_demo(Path(folder), once=once))


async def _demo(folder: Path, *, once: bool) -> None:
    # A terminal that is closed, or a supervisor, must not leave the registry behind.
    task = asyncio.current_task()
    if task:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with _serving(folder / "images") as served:
            host = served.host.result()
            print(f"serving http://{host}, images in {folder / 'images'}")
            reference = Reference.parse(f"{host}/{sample.NAME}")
            async with Session() as session:
                await _push(session, Cache(folder / "sample"), reference)
                await _pull(session, Cache(folder / "cache"), reference)
            _suggest(reference, folder / "cache")
            if not once:
                print("\nserving until Ctrl-C", flush=True)
                await served.serve_on()


async def _push(session: Session, cache: Cache, reference: Reference) -> None:
    image = sample.build()
    for digest, data in image.contents.items():
        await cache.layout.add(digest, data)
    await cache.layout.set_name(str(reference), image.index)
    await push_in(session, cache, reference)
    platforms = ", ".join(map(str, sample.PLATFORMS))
    print(f"pushed {reference} for {platforms}: {len(image.contents)} blobs and manifests\n")


async def _pull(session: Session, cache: Cache, reference: Reference) -> None:
    runs_here = any(Platform.here().rank(each) is not None for each in sample.PLATFORMS)
    style = Style.BARS if sys.stdout.isatty() else Style.LINES
    with shown(style, sys.stdout, sys.stderr) as report:
        await pull_in(session, cache, reference, Options(None if runs_here else sample.PLATFORMS[0]), report)
    count = await finish(_verify, cache.root)
    print(f"verified: all {count} files in the cache have the content that their digests name\n")
    image = await cache.inspect(reference)
    print(f"the cache {cache.root} holds {image.name}\n  {image.digest}")
    for variant in image.variants:
        _show(variant)


def _show(variant: Variant) -> None:
    settings = variant.to_json()
    print(f"  {variant.platform}, {size_text(variant.size)}, made of")
    for layer in settings["layers"]:
        print(f"    {Digest.parse(layer['digest']).short}  {size_text(layer['size']):>8}  {layer['createdBy']}")
    print(f"  starts {' '.join(settings['config']['Cmd'])} in {settings['config']['WorkingDir']} with")
    for variable in settings["config"]["Env"]:
        print(f"    {variable}")


def _suggest(reference: Reference, cache: Path) -> None:
    commands = (
        f"docker pull {reference.name}",
        f"docker image history {reference.name}",
        f"docker tag YOUR-IMAGE {reference.host}/YOUR-IMAGE && docker push {reference.host}/YOUR-IMAGE",
        f"skopeo inspect oci:{cache}:{reference}",
        f"pullclient pull {reference.name}",
    )
    print("\ntry next, while `registry demo` serves:")
    for command in commands:
        print(f"  {command}")
    print("the sample's base stands in for that of node: it can be pulled, stored and shown, but it starts nothing")


def _verify(root: Path) -> int:
    """Hashes every blob of a layout anew; returns how many there are. Blocks.

    Raises:
        CacheError: naming one whose content is another.
    """
    blobs = [each for each in (root / "blobs").rglob("*") if each.is_file()]
    for path in blobs:
        verifier = Verifier(Digest.parse(f"{path.parent.name}:{path.name}"))
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                verifier.update(piece)
        if not verifier.verified():
            raise CacheError(f"{path} is damaged: its content hashes to {verifier.actual}")
    return len(blobs)


class _Served:
    """A registry in a process of its own.

    Attributes:
        host: where it listens, once that is known.
        shows_log: whether what it logs from now on is shown.
    """

    def __init__(self, log: asyncio.StreamReader) -> None:
        self.host: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.shows_log = False
        self._log = log
        self._following = asyncio.create_task(self._follow())

    async def serve_on(self) -> None:
        """Shows what the registry logs from now on; raises StorageError when it ends by itself."""
        self.shows_log = True
        await asyncio.shield(self._following)
        raise StorageError("the registry ended")

    async def ended(self) -> None:
        """Waits until the log is at its end."""
        await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        # To the end, for a registry whose log nobody reads would wait for a reader.
        last: deque[str] = deque(maxlen=5)
        async for line in self._log:
            last.append(line.decode(errors="replace").rstrip())
            if self.shows_log:
                print(last[-1], file=sys.stderr, flush=True)
            elif _LISTENING in last[-1] and not self.host.done():
                self.host.set_result(last[-1].partition(_LISTENING)[2].partition('"')[0])
        if not self.host.done():
            self.host.set_exception(StorageError(f"the registry did not start: {' / '.join(last)}"))


@asynccontextmanager
async def _serving(root: Path) -> AsyncIterator[_Served]:
    command = (sys.executable, "-m", "registry", "serve", "--root", str(root), "--addr", f"127.0.0.1:{_free_port()}")
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    served = _Served(cast("asyncio.StreamReader", process.stderr))
    try:
        try:
            await asyncio.wait_for(served.host, _STARTS_WITHIN)
        except TimeoutError as error:
            raise StorageError(f"the registry did not start within {_STARTS_WITHIN:.0f} s") from error
        yield served
    finally:
        await _stop(process)
        await served.ended()


async def _stop(process: asyncio.subprocess.Process) -> None:
    # Not `terminate`: it reaps a registry that has just ended, and asyncio then complains that it cannot.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _ENDS_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    """Returns the port that docker users know, or 0 for any where it is taken."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", _PORT))
        return _PORT
    return 0
