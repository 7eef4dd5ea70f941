"""The sockets that are listened on: TCP on one address or on all, as Go's `net.Listen` understands them, and UNIX."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ocispec.errors import LayerhouseError

BACKLOG = 2048
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - for Go each of them means IPv4 and IPv6
_MAPPED = "::ffff:"


class ListenError(LayerhouseError):
    """The address cannot be listened on; the message names it and the cause."""

    code, summary = "LISTEN_FAILED", "cannot listen"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where to listen.

    Attributes:
        host: a name or an address; empty, `0.0.0.0` or `::` for all, IPv6 and IPv4.
        port: 0 takes a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> TcpAddress:
        """Reads `HOST:PORT`, with an IPv6 address in brackets."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """Where to listen; whom the umask lets write to the socket may connect."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


@contextmanager
def listening(address: Address, stall_seconds: float) -> Iterator[socket.socket]:
    """Listens; connections wait from here on, and are served once somebody accepts them.

    Args:
        address: where.
        stall_seconds: how long a client may take nothing of what it is sent until its connection ends; TCP only.

    Raises:
        ListenError: the address is taken, or is none of this machine.
    """
    try:
        made = _unix(address.path) if isinstance(address, UnixAddress) else _tcp(address)
    except OSError as error:
        cause = (error.strerror or str(error)).partition(" (while")[0]  # what follows names the address again
        raise ListenError(f"cannot listen on {address}: {cause}") from error
    with made:
        if isinstance(address, TcpAddress):
            # Connections inherit both: a client that lost its power does not hold its upload for ever, nor one that
            # stopped reading its download.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(stall_seconds * 1000))
            yield made
        else:
            own = address.path.stat().st_ino
            try:
                yield made
            finally:
                _remove(address.path, own)


def bound(made: socket.socket) -> Address:
    """The address that a socket got."""
    name = made.getsockname()
    return UnixAddress(Path(name)) if isinstance(name, str) else TcpAddress(name[0], name[1])


def reaches(address: TcpAddress, host: str, port: int) -> bool:
    """Whether who connected to `host` and `port` came by way of a bound address."""
    return port == address.port and (address.host in _EVERYWHERE or unmapped(host) == unmapped(address.host))


def unmapped(host: str) -> str:
    """The IPv4 address of a client that came by IPv4 to a socket that listens for both (RFC 4291, section 2.5.5.2)."""
    return host.removeprefix(_MAPPED) if "." in host else host


def _tcp(address: TcpAddress) -> socket.socket:
    if address.host not in _EVERYWHERE:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        # IPv4 first, as in Go.
        family, _, _, _, name = min(found, key=lambda each: each[0] != socket.AF_INET)
        return socket.create_server(name[:2], family=family, backlog=BACKLOG)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", address.port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            # The kernel knows IPv6, and no interface may have it.
    return socket.create_server(("0.0.0.0", address.port), backlog=BACKLOG)  # noqa: S104 - as above


def _unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        _remove_abandoned(path)
        made.bind(os.fspath(path))
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _remove_abandoned(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on unix:{path}: expected no file or a socket there")
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ListenError(f"cannot listen on unix:{path}: another server listens there")


def _remove(path: Path, own: int) -> None:
    """Removes the socket that is ours, and not one that somebody made in its place."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == own:
            path.unlink()
