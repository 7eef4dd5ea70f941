from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import DigestInvalid, NameInvalid, TagInvalid
from ocispec.reference import Reference, RepositoryName, parse_tag_or_digest
from tests.ocispec.strategies import UNCLEAN, digests, references, repositories, tags

DIGEST = f"sha256:{'c' * 64}"
DIGEST_512 = f"sha512:{'d' * 128}"
IMAGE_ID = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"


@given(references())
def test_a_reference_reads_back_what_it_prints(reference):
    assert Reference.parse(str(reference)) == reference


@given(references())
def test_the_short_form_means_the_same_image(reference):
    assert Reference.parse(reference.familiar) == reference


@given(st.text() | st.text("aA0./:@-_[]") | references().map(lambda each: each.familiar))
def test_every_text_has_one_normal_form_or_is_refused(text):
    with suppress(NameInvalid, TagInvalid, DigestInvalid):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == Reference.parse(reference.familiar) == reference


@given(repositories)
def test_a_repository_name_reads_back_what_it_prints(name):
    assert RepositoryName.parse(str(name)) == name


@given(tags | digests)
def test_a_tag_or_digest_reads_back_what_it_prints(target):
    assert parse_tag_or_digest(str(target)) == target


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("diamol/ch03-web-ping", "docker.io/diamol/ch03-web-ping:latest", "diamol/ch03-web-ping:latest"),
        ("node", "docker.io/library/node:latest", "node:latest"),
        ("node:20.1_x-Y", "docker.io/library/node:20.1_x-Y", "node:20.1_x-Y"),
        ("library/node", "docker.io/library/node:latest", "node:latest"),
        ("docker.io/node", "docker.io/library/node:latest", "node:latest"),
        ("docker.io/library/node", "docker.io/library/node:latest", "node:latest"),
        ("index.docker.io/node", "docker.io/library/node:latest", "node:latest"),
        ("index.docker.io/diamol/x", "docker.io/diamol/x:latest", "diamol/x:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("store/a/b", "docker.io/store/a/b:latest", "store/a/b:latest"),
        ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("127.0.0.1:8000/private/moonbase", "127.0.0.1:8000/private/moonbase:latest", None),
        ("192.168.0.1:80", "docker.io/library/192.168.0.1:80", "192.168.0.1:80"),
        ("[::1]/x", "[::1]/x:latest", None),
        ("[::1]:5000/x", "[::1]:5000/x:latest", None),
        ("[fc00:1:2:3:4:5:6:7]:5000/library/debian:v1", "[fc00:1:2:3:4:5:6:7]:5000/library/debian:v1", None),
        ("HOST.example/x", "HOST.example/x:latest", None),
        ("HOST/x", "HOST/x:latest", None),
        ("test_com/foo", "docker.io/test_com/foo:latest", "test_com/foo:latest"),
        ("test-com:8080/foo", "test-com:8080/foo:latest", None),
        ("xn--n3h.com:18080/foo", "xn--n3h.com:18080/foo:latest", None),
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", None),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", None),
        ("docker.io/index.docker.io/x", "docker.io/index.docker.io/x:latest", None),
        ("docker---rules/dock__er", "docker.io/docker---rules/dock__er:latest", "docker---rules/dock__er:latest"),
        (f"docker.io/{IMAGE_ID}", f"docker.io/library/{IMAGE_ID}:latest", f"{IMAGE_ID}:latest"),
        (f"node@{DIGEST}", f"docker.io/library/node@{DIGEST}", f"node@{DIGEST}"),
        (f"node:20@{DIGEST}", f"docker.io/library/node:20@{DIGEST}", f"node:20@{DIGEST}"),
        (f"a.b:1/c/d:e@{DIGEST_512}", f"a.b:1/c/d:e@{DIGEST_512}", None),
        ("a" * 237, f"docker.io/library/{'a' * 237}:latest", f"{'a' * 237}:latest"),
        (f"x:{'t' * 128}", f"docker.io/library/x:{'t' * 128}", f"x:{'t' * 128}"),
    ],
)
def test_names_are_read_as_docker_reads_them(text, normal, familiar):
    reference = Reference.parse(text)
    assert str(reference) == normal
    assert reference.familiar == (familiar or normal)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", NameInvalid),
        ("/", NameInvalid),
        (":tag", NameInvalid),
        (f"@{DIGEST}", NameInvalid),
        ("Node", NameInvalid),
        ("diamol/Ping", NameInvalid),
        ("localhost:5000/Upper/lower:t", NameInvalid),
        ("a//b", NameInvalid),
        ("a/", NameInvalid),
        ("/a", NameInvalid),
        ("docker.io/", NameInvalid),
        ("docker.io//x", NameInvalid),
        ("..", NameInvalid),
        ("../etc/passwd", NameInvalid),
        ("a/../b", NameInvalid),
        ("a/./b", NameInvalid),
        ("a/_layers", NameInvalid),
        ("a..b/c", NameInvalid),
        ("a._b", NameInvalid),
        ("a___b", NameInvalid),
        ("-a", NameInvalid),
        ("a-", NameInvalid),
        ("-host.example/x", NameInvalid),
        ("host-.example/x", NameInvalid),
        ("host..example/x", NameInvalid),
        ("host.example:/x", NameInvalid),
        ("host.example:port/x", NameInvalid),
        ("host.example:123456/x", NameInvalid),
        ("user@host.example/x", DigestInvalid),
        ("https://host.example/x", NameInvalid),
        ("[::1]", NameInvalid),
        ("[::1]:5000", NameInvalid),
        ("::1:5000/x", NameInvalid),
        ("[fe80::1%eth0]:5000/x", NameInvalid),
        ("[2001:db8::192.0.2.33]:5000/x", NameInvalid),
        ("[]/x", NameInvalid),
        ("a\\b", NameInvalid),
        ("n\u00f6de", NameInvalid),
        (IMAGE_ID, NameInvalid),
        ("a" * 4096, NameInvalid),
        ("a/" * 2048 + "a", NameInvalid),
        ("a." * 2048 + "a/x", NameInvalid),
        ("a" * 238, NameInvalid),
        ("a" * 246, NameInvalid),
        (f"host.example/{'a' * 243}", NameInvalid),
        ("node:", TagInvalid),
        ("node:.a", TagInvalid),
        ("node:-a", TagInvalid),
        ("node:a b", TagInvalid),
        ("node:a:b", NameInvalid),
        ("node:..", TagInvalid),
        (f"node:{'t' * 129}", TagInvalid),
        (f"node:{'t' * 4096}", TagInvalid),
        ("node@", DigestInvalid),
        ("node:20@", DigestInvalid),
        ("node@latest", DigestInvalid),
        ("node@sha256:abc", DigestInvalid),
        (f"node@{DIGEST.upper()}", DigestInvalid),
        (f"node@md5:{'a' * 32}", DigestInvalid),
        (f"node@{DIGEST}@{DIGEST}", DigestInvalid),
        *((f"no{each}de", NameInvalid) for each in UNCLEAN),
        *((f"node{each}", NameInvalid) for each in UNCLEAN),
        *((f"{each}node", NameInvalid) for each in UNCLEAN),
        *((f"host{each}.example/x", NameInvalid) for each in UNCLEAN),
        *((f"host.example{each}/x", NameInvalid) for each in UNCLEAN),
        *((f"node:20{each}", TagInvalid) for each in UNCLEAN),
        *((f"node@{DIGEST}{each}", DigestInvalid) for each in UNCLEAN),
    ],
)
def test_what_is_no_name_is_refused_with_a_short_reason(text, error):
    with pytest.raises(error) as caught:
        Reference.parse(text)
    assert len(caught.value.message) < 3000
    assert caught.value.message.isprintable()


def test_a_port_is_no_tag_and_a_tag_no_port():
    reference = Reference.parse("localhost:5000/x")
    assert (reference.host, reference.repository, reference.tag) == ("localhost:5000", "x", "latest")


def test_a_digest_wins_over_a_tag():
    both = Reference.parse(f"node:20@{DIGEST}")
    assert both.target == Digest.parse(DIGEST)
    assert both.tag == "20"
    assert Reference.parse("node:20").target == "20"
    assert Reference.parse("node").target == "latest"
    assert Reference.parse("node").with_digest(Digest.parse(DIGEST)) == Reference.parse(f"node:latest@{DIGEST}")


def test_a_reference_without_tag_and_digest_asks_for_latest():
    assert Reference("docker.io", RepositoryName("library/node")).target == "latest"


@pytest.mark.parametrize("text", ["", ".", "..", "a b", "a/b", "\n", "a\n", "\u0663", "t" * 129])
def test_a_manifest_is_asked_for_by_a_tag_or_a_digest(text):
    with pytest.raises(TagInvalid):
        parse_tag_or_digest(text)


@pytest.mark.parametrize("text", [":", "sha256:", "latest:x", f"{DIGEST}\n"])
def test_what_holds_a_colon_must_be_a_digest(text):
    with pytest.raises(DigestInvalid):
        parse_tag_or_digest(text)
