"""Which token server may see the credentials of a registry (CVE-2026-33540).

Whoever answers for a registry names the token server. Credentials follow only to the site they belong to, and never
from https to http.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from storage.threads import finish

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList


class Sites:
    """Tells sites apart by the list of public suffixes, whose private section parts the customers of one host."""

    def __init__(self) -> None:
        self._list: PublicSuffixList | None = None

    async def objection(self, api: str, realm: str) -> str | None:
        """Returns why what belongs to the registry at `api` must not be sent to `realm`; None where it may.

        Args:
            api: URL of the registry.
            realm: URL of the token server.
        """
        home, there = urlsplit(api), urlsplit(realm)
        if home.scheme == "https" and there.scheme != "https":
            return "they would go there unencrypted"
        hosts = _host(home.hostname), _host(there.hostname)
        return None if await self._same(*hosts) else f"it is on another site than {hosts[0]}"

    async def _same(self, one: str, other: str) -> bool:
        if one == other:
            return True
        if not (_has_site(one) and _has_site(other)) or one.rpartition(".")[2] != other.rpartition(".")[2]:
            return False
        if self._list is None:
            self._list = await finish(_read_list)
        site = self._list.privatesuffix(one)
        return site is not None and site == self._list.privatesuffix(other)


def _host(name: str | None) -> str:
    return (name or "").rstrip(".")


def _has_site(host: str) -> bool:
    # What ends in a number is an address, in whatever way it is written (WHATWG URL, "ends in a number").
    last = host.rpartition(".")[2]
    return not (last.isdecimal() or last.startswith("0x") or _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _read_list() -> PublicSuffixList:
    # Reading the list takes as long as starting the whole command; most pulls need no credentials.
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 - see above

    return PublicSuffixList()
