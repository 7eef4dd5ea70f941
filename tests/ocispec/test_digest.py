import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import HEX_LENGTHS, Digest, Verifier, new_hash
from ocispec.errors import DigestInvalid
from tests.ocispec.strategies import UNCLEAN, digests

SHA256, SHA512 = "a" * 64, "0" * 128


@given(digests)
def test_a_digest_reads_back_what_it_prints(digest):
    assert Digest.parse(str(digest)) == digest


@given(st.text())
def test_no_text_does_more_than_be_refused(text):
    with suppress(DigestInvalid):
        assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        SHA256,
        f"sha256:{SHA256[:-1]}",
        f"sha256:{SHA256}a",
        f"sha256:{SHA512}",
        f"sha512:{SHA256}",
        f"sha512:{SHA512}0",
        f"sha256:{SHA256.upper()}",
        f"SHA256:{SHA256}",
        f"sha256:{SHA256[:-1]}g",
        f"sha256:{'../' * 21}a",
        f"sha256:{SHA256[:-2]}..",
        f"sha256::{SHA256[:-1]}",
        f"sha256:{SHA256}:{SHA256}",
        f"sha384:{'a' * 96}",
        f"sha1:{'a' * 40}",
        f"md5:{'a' * 32}",
        f"blake3:{SHA256}",
        f"sha256+b64:{SHA256}",
        "sha256:" + "a" * 4096,
        *(f"sha256:{SHA256}{each}" for each in UNCLEAN),
        *(f"sha256:{SHA256[:-1]}{each}" for each in UNCLEAN),
        *(f"{each}sha256:{SHA256}" for each in UNCLEAN),
    ],
)
def test_what_is_no_digest_is_refused_with_a_short_reason(text):
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert "expected sha256:<64 lower-case hex digits> or sha512:<128>" in caught.value.message
    assert len(caught.value.message) < 2000
    assert caught.value.detail == {"digest": text[:200]}


@pytest.mark.parametrize("algorithm", HEX_LENGTHS)
def test_content_is_known_by_its_digest(algorithm):
    digest = Digest.of(b"layer", algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, b'layer').hexdigest()}"
    assert digest.matches(b"layer")
    assert not digest.matches(b"laye")
    assert digest.short == digest.hex[:12]


def test_digests_sort_by_algorithm_then_hex():
    first, second, third = Digest("sha256", "0" * 64), Digest("sha256", "1" * 64), Digest("sha512", SHA512)
    assert sorted([third, first, second]) == [first, second, third]


@pytest.mark.parametrize("algorithm", ["", "md5", "sha1", "sha384", "SHA256", "sha256\n", "x" * 4096])
def test_an_algorithm_that_cannot_be_trusted_is_refused(algorithm):
    with pytest.raises(DigestInvalid, match="expected sha256 or sha512"):
        new_hash(algorithm)


@given(st.lists(st.binary(max_size=20), max_size=6), st.sampled_from(sorted(HEX_LENGTHS)))
def test_a_verifier_tells_the_right_bytes_in_any_pieces(pieces, algorithm):
    content = b"".join(pieces)
    verifier = Verifier(Digest.of(content, algorithm))
    for piece in pieces:
        verifier.update(memoryview(piece))
    assert verifier.verified()
    assert verifier.actual == Digest.of(content, algorithm)
    assert verifier.size == len(content)
    verifier.update(b"x")
    assert not verifier.verified()
