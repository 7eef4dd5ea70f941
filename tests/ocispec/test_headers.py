from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import GrammarError
from ocispec.headers import ByteRange, Challenge, ChunkRange, ContentRange, Link, Scope, next_link
from tests.ocispec import strategies
from tests.ocispec.strategies import UNCLEAN

PARSERS = [ByteRange.parse, ContentRange.parse, ChunkRange.parse, Link.parse, next_link, Challenge.parse, Scope.parse]
PARSERS.append(Challenge.parse_all)


@given(strategies.byte_ranges)
def test_a_range_reads_back_what_it_prints(value):
    assert ByteRange.parse(str(value)) == value


@given(strategies.content_ranges)
def test_a_content_range_reads_back_what_it_prints(value):
    assert ContentRange.parse(str(value)) == value


@given(strategies.chunk_ranges)
def test_a_chunk_range_reads_back_what_it_prints(value):
    assert ChunkRange.parse(str(value)) == value


@given(st.lists(strategies.links, min_size=1, max_size=3))
def test_links_read_back_what_they_print(values):
    assert list(Link.parse(", ".join(map(str, values)))) == values


@given(strategies.challenges)
def test_a_challenge_reads_back_what_it_prints(value):
    assert Challenge.parse(str(value)) == value


@given(st.lists(strategies.challenges, max_size=3))
def test_several_challenges_read_back_what_they_print(values):
    assert list(Challenge.parse_all(", ".join(map(str, values)))) == values


@given(strategies.scopes)
def test_a_scope_reads_back_what_it_prints(value):
    assert Scope.parse(str(value)) == value


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__qualname__)
@given(st.text() | st.text('bytes= -*/0189,;"\\<>:arel') | st.text(st.characters(max_codepoint=255)))
def test_no_text_does_more_than_be_refused(parse, text):
    with suppress(GrammarError):
        parse(text)


# Each is built against one pattern: what it repeats, and an end that makes everything before it in vain.
HOSTILE = [
    "a" * 65536,
    " " * 65536 + "x",
    "bytes=" + "9" * 65536,
    "bytes " + "9" * 65536 + "-",
    "-" * 65536,
    "<" * 65536,
    "<" + "a" * 65536,
    "<a>" + " " * 65536 + "x",
    "<a>" + ";" * 65536,
    "<a>" + ";a" * 32768 + "\n",
    "<a>" + "; a = b" * 9362 + "\n",
    "<a>;a" + " " * 65536 + "\n",
    "<a>;a=" + "b" * 65536 + "\n",
    '<a>;a="' + "b" * 65536,
    '<a>;a="' + "\\b" * 32768,
    '<a>;a="' + '\\"' * 32768,
    "<a>" + ';a="b"' * 10922 + "x",
    "<a>," * 16384 + "x",
    "<a>" + "," * 65536 + "x",
    "Bearer " + "a" * 65536,
    "Bearer" + " " * 65536 + "\n",
    "Bearer " + "a=b," * 16384 + "\n",
    "Bearer " + "a=b , " * 10922 + '"',
    "Bearer a" + " " * 65536 + "b",
    "Bearer a=b" + " " * 65536 + "b",
    'Bearer a="' + "\\a" * 32768,
    'Bearer a="' + "a\\" * 32769,
    "Bearer " + 'a="' * 21845,
    ":" * 65536 + " ",
    "repository:" + "a:" * 32768 + " ",
    "repository:a:" + "a," * 32768,
    "repository:" + ":a,a" * 16384 + "A",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__qualname__)
@pytest.mark.timeout(20)  # a guard against backtracking, which would take hours
def test_a_hostile_header_of_64_kib_holds_nobody_up(parse, text):
    try:
        parse(text)
    except GrammarError as error:
        message = error.message
    else:
        message = "a long token alone is a scheme"
    assert len(message) < 1000


@pytest.mark.parametrize(
    "text", ["", "bytes", "bytes=", "bytes=-", "bytes=0", "items=0-1", "0-1", "bytes=a-b", "bytes=0x1-2", "bytes=1-+2",
             "bytes=0-1,3-4", "bytes=0-1,", "bytes =0-1", "bytes=0 -1", "bytes=0-" + "9" * 20, "byte\u017f=0-1",
             *(f"bytes=0-1{each}" for each in UNCLEAN if each not in " \t"), *(f"bytes=0{each}-1" for each in UNCLEAN)],
)  # fmt: skip
def test_what_is_no_single_byte_range_is_refused(text):
    with pytest.raises(GrammarError, match="invalid Range"):
        ByteRange.parse(text)


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        ("bytes=0-", 10, (0, 10)),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=3-5", 10, (3, 3)),
        ("Bytes=9-", 10, (9, 1)),
        ("bytes=5-9999999999999999999", 10, (5, 5)),
        ("bytes=-3", 10, (7, 3)),
        ("bytes=-99", 10, (0, 10)),
        (" bytes=1-2 ", 10, (1, 2)),
        ("bytes=10-", 10, None),
        ("bytes=10-12", 10, None),
        ("bytes=500-0", 1000, None),
        ("bytes=-0", 10, None),
        ("bytes=0-", 0, None),
        ("bytes=0-0", 0, None),
        ("bytes=-1", 0, None),
    ],
)
def test_a_range_is_cut_to_what_is_there(header, size, span):
    assert ByteRange.parse(header).within(size) == span


@given(strategies.byte_ranges, st.integers(0, 2**40))
def test_a_cut_range_never_leaves_the_content(value, size):
    span = value.within(size)
    assert span is None or (span[0] >= 0 and span[1] > 0 and sum(span) <= size)


@pytest.mark.parametrize(
    "text", ["", "bytes", "bytes 0-1", "bytes 0-/2", "bytes -1/2", "bytes 0-1/", "bytes */*", "bytes *", "0-1/2",
             "bytes=0-1/2", "bytes 1-0/2", "bytes 0-2/2", "items 0-1/2", "bytes 0-1/2/3",
             *(f"bytes 0-1/2{each}" for each in UNCLEAN if each not in " \t"),
             *(f"bytes 0{each}-1/2" for each in UNCLEAN)],
)  # fmt: skip
def test_a_content_range_that_no_answer_can_have_is_refused(text):
    with pytest.raises(GrammarError, match="invalid Content-Range"):
        ContentRange.parse(text)


def test_a_content_range_may_leave_the_size_or_the_span_open():
    assert ContentRange.parse("bytes 0-1/*") == ContentRange(0, 1, None)
    assert ContentRange.parse("bytes */0") == ContentRange(None, None, 0)
    assert ContentRange.parse("Bytes 0-0/1") == ContentRange(0, 0, 1)


@pytest.mark.parametrize(
    "text", ["", "-", "0-", "-1", "1-0", "0-1/2", "0-1-2", "items=0-1", "bytes:0-1", "0 - 1", "0-1,2-3",
             "0-" + "9" * 20,
             *(f"0-1{each}" for each in UNCLEAN if each not in " \t"), *(f"0{each}-1" for each in UNCLEAN)],
)  # fmt: skip
def test_what_is_no_chunk_is_refused(text):
    with pytest.raises(GrammarError, match="invalid Content-Range"):
        ChunkRange.parse(text)


def test_a_chunk_counts_both_its_ends():
    assert ChunkRange.parse("5-9").length == 5
    assert ChunkRange.parse("bytes=5-9") == ChunkRange.parse("bytes 5-9") == ChunkRange(5, 9)
    assert [str(ChunkRange.of_size(size)) for size in (0, 1, 2)] == ["0-0", "0-0", "0-1"]


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("", None),
        ('</v2/_catalog?n=1&last=a%2Cb>; rel="next"', "/v2/_catalog?n=1&last=a%2Cb"),
        ("<a,;b>;rel=next", "a,;b"),
        ('<a> ; REL = "Prev Next" ; title', "a"),
        ('<a>; rel="prev", <b>; rel="next", <c>; rel="next"', "b"),
        ('<a>; title=";,<x>; rel=next"; rel=last', None),
        ('<a>; rel=last; rel="next"', None),
        (', ,<a>; rel="next",, ', "a"),
        ("<a>", None),
        ('<>; rel="next"', ""),
    ],
)
def test_the_next_page_is_found(header, target):
    assert next_link(header) == target


@pytest.mark.parametrize(
    "text", ["a", "<a", "a>", "<a> b", "<a>; =b", "<a>;", '<a>; rel="next', "<a>; rel=", "<a> <b>", "<a\n>", "<a>\n",
             "<a>; rel=\u0661", '<a>; rel="a\nb"', '<a>; rel="a\\\nb"', "<a<b>", "<a\0>", "<a>;rel=a\u00a0"],
)  # fmt: skip
def test_what_is_no_link_is_refused(text):
    with pytest.raises(GrammarError, match="invalid Link"):
        Link.parse(text)


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            Challenge(
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                },
            ),
        ),
        ('BASIC Realm = "a \\"b\\" \\\\c"', Challenge("basic", {"realm": 'a "b" \\c'})),
        ("Basic", Challenge("basic")),
        ("Digest qop=auth , a=b,", Challenge("digest", {"qop": "auth", "a": "b"})),
        ("Bearer a=1,A=2", Challenge("bearer", {"a": "1"})),
        (" Bearer \t", Challenge("bearer")),
        ('Bearer a=""', Challenge("bearer", {"a": ""})),
    ],
)
def test_challenges_of_real_registries_are_read(header, challenge):
    assert Challenge.parse(header) == challenge


@pytest.mark.parametrize(
    "text", ["", " ", "=", "Bearer a", "Bearer a=", "Bearer =b", 'Bearer a="', "Bearer a=b c=d", "Bearer a=b;c=d",
             "Bearer\ta=b", "Bearer a=b\n", 'Bearer a="b\nc"', "Bearer,a=b", 'Be"arer a=b', "B\u00e9arer a=b",
             "Bearer ,a=b",              "Bearer a=\u0661", "Bearer\0", "a=b", "Bearer a=b\r\nX: y",
             'Bearer realm="x",Basic realm="y"'],
)  # fmt: skip
def test_what_is_no_challenge_is_refused(text):
    with pytest.raises(GrammarError, match="invalid WWW-Authenticate"):
        Challenge.parse(text)


def test_scopes_are_read_as_docker_writes_them():
    assert Scope.parse("repository:library/node:pull,push") == Scope("repository", "library/node", ("pull", "push"))
    assert Scope.parse("repository:host:5000/x:pull") == Scope("repository", "host:5000/x", ("pull",))
    assert Scope.parse("repository(plugin):a/b:*") == Scope("repository(plugin)", "a/b", ("*",))
    assert Scope.parse("registry:catalog:*") == Scope("registry", "catalog", ("*",))
    assert Scope.parse("repository:a:") == Scope("repository", "a", ())


@pytest.mark.parametrize(
    "text", ["", ":", "::", "repository", "repository:a", "repository::pull", ":a:pull", "Repository:a:pull",
             "repository:a:Pull", "repository:a b:pull", "repository:a:pull,", "repository:a:,pull",
             "repository:a:pull,,push", "repository():a:pull",
             *(f"repository:a:pull{each}" for each in UNCLEAN),
             *(f"repository:a{each}:pull" for each in UNCLEAN), *(f"{each}repository:a:pull" for each in UNCLEAN)],
)  # fmt: skip
def test_what_is_no_scope_is_refused(text):
    with pytest.raises(GrammarError, match="invalid scope"):
        Scope.parse(text)
