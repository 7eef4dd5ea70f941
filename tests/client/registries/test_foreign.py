"""Foreign layers: fetched from where they say, in ranges too, without any access."""

from __future__ import annotations

import pytest

from client.registries.foreign import ForeignSource
from client.session import Session
from ocispec.digest import Digest
from ocispec.errors import BlobUnknown, HostUnreachable, RangeInvalid, ResponseInvalid, Unauthorized
from ocispec.headers import ByteRange
from tests.client.faulty import faulty, whole
from tests.client.scripted import Reply

DATA = b"0123456789"
DIGEST = Digest.of(DATA)


async def fetched(url: str, span: ByteRange | None = None) -> tuple[bytes, bool]:
    got = bytearray()
    async with Session() as session, ForeignSource(url, session.send).part(DIGEST, span, mirrors=True) as body:
        await body.response.pour(got.extend)
        return bytes(got), body.partial


async def test_it_comes_whole_or_in_part():
    async with faulty() as vendor:
        vendor.blob("x", DATA)
        url = f"http://{vendor.host}/v2/x/blobs/{DIGEST}"
        assert await fetched(url) == (DATA, False)
        assert await fetched(url, ByteRange(2, 4)) == (DATA[2:5], True)
        vendor.twist = lambda _, sent: whole(sent, DATA)
        assert await fetched(url, ByteRange(2, 4)) == (DATA, False)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(404), BlobUnknown),
        (Reply(401, headers={"WWW-Authenticate": "Basic"}), Unauthorized),
        (Reply(416), RangeInvalid),
        (Reply(206, b"123", {"Content-Range": "bytes 0-2/10"}), ResponseInvalid),
    ],
)
async def test_what_else_it_answers_is_an_error(reply: Reply, kind: type[Exception]):
    async with faulty() as vendor:
        vendor.behaviours["/x"] = reply
        with pytest.raises(kind):
            await fetched(f"http://{vendor.host}/x", ByteRange(2, 4))
        assert len(vendor.seen) == 1
        assert "authorization" not in vendor.seen[0].headers


async def test_a_host_that_is_not_there_is_named():
    async with faulty() as gone:
        pass
    with pytest.raises(HostUnreachable, match=f"^{gone.host} cannot be reached"):
        await fetched(f"http://{gone.host}/x")


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "x/y", "http:///y", ""])
def test_an_address_of_another_kind_is_refused(url: str):
    with pytest.raises(ResponseInvalid, match=r"^foreign layer: .* is neither http nor https$"):
        ForeignSource(url, Session().send)


def test_an_address_that_is_none_is_named():
    with pytest.raises(ResponseInvalid, match=r"^'http://\[x' is no address"):
        ForeignSource("http://[x", Session().send)


def test_it_takes_the_places_of_its_own_host():
    assert ForeignSource("https://a.example:5000/x?y", Session().send).host == "a.example:5000"
