"""Values of every grammar, for property tests of any floor."""

from __future__ import annotations

from hypothesis import strategies as st

from ocispec.descriptor import Descriptor
from ocispec.digest import HEX_LENGTHS, Digest
from ocispec.headers import ByteRange, Challenge, ChunkRange, ContentRange, Link, Scope
from ocispec.platform import Platform
from ocispec.reference import DOCKER_HUB, MAX_NAME, Reference, RepositoryName, Tag

# What every part of every grammar must refuse: bytes that are not ASCII's printable ones, and a newline at the end.
UNCLEAN = ["\n", "\r\n", "\0", "\x7f", "\u0660", "\u00b2", "\u017f", "\u212a", "\ud800", " ", "\t", "\u2028"]

numbers = st.integers(0, 10**19 - 1)
digests = st.builds(Digest.of, st.binary(max_size=4), st.sampled_from(sorted(HEX_LENGTHS)))

components = st.from_regex(r"[a-z0-9]{1,8}(?:(?:\.|_|__|-{1,4})[a-z0-9]{1,4}){0,3}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=6).map("/".join).map(RepositoryName)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).map(Tag)
_dotted = st.from_regex(r"[a-zA-Z0-9]{1,4}(?:-[a-z0-9]{1,4})?(?:\.[a-z0-9]{1,4}){1,3}", fullmatch=True)
_ports = st.integers(0, 99999).map(":{}".format)
hosts = st.one_of(
    st.sampled_from([DOCKER_HUB, "localhost", "127.0.0.1", "[::1]", "[2001:db8::1]", "HOST"]),
    _dotted,
    st.builds(str.__add__, st.sampled_from(["registry", "localhost", "10.0.0.1", "[::1]"]), _ports),
    st.builds(str.__add__, _dotted, _ports),
)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    host, repository = draw(hosts), draw(repositories)
    if host == DOCKER_HUB and "/" not in repository:
        repository = RepositoryName(f"library/{repository}")
    tag, digest = draw(st.none() | tags), draw(st.none() | digests)
    if len(host) + 1 + len(repository) > MAX_NAME:
        repository = RepositoryName(repository[:100].rstrip("/.-_") if host != DOCKER_HUB else "library/node")
    return Reference(host, repository, tag if digest else tag or Tag("latest"), digest)


_words = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True)
_systems = st.sampled_from(["linux", "Linux", "windows", "macOS", "win32", "freebsd"]) | _words
_architectures = st.sampled_from(["amd64", "x86_64", "arm64", "AArch64", "arm", "armhf", "386", "riscv64"]) | _words
_variants = st.from_regex(r"v?[0-9]{1,2}(?:\.[0-9]{1,2})?", fullmatch=True) | _words
platforms = st.builds(Platform.normal, _systems, _architectures, st.none() | _variants, st.none() | _words)

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
descriptors = st.builds(
    Descriptor,
    media_type=_texts,
    digest=digests,
    size=st.integers(0, 2**63 - 1),
    platform=st.none() | platforms,
    annotations=st.dictionaries(_texts, _texts, max_size=3),
    artifact_type=st.none() | _texts.filter(bool),
    urls=st.lists(_texts, max_size=2).map(tuple),
)

byte_ranges = st.builds(ByteRange, numbers, st.none() | numbers) | st.builds(ByteRange, st.none(), numbers)
chunk_ranges = st.tuples(numbers, numbers).map(sorted).map(lambda pair: ChunkRange(*pair))
content_ranges = st.one_of(
    st.builds(ContentRange, st.none(), st.none(), numbers),
    st.lists(numbers, min_size=3, max_size=3, unique=True).map(sorted).map(lambda three: ContentRange(*three)),
    st.tuples(numbers, numbers).map(sorted).map(lambda pair: ContentRange(*pair, None)),
)

_tokens = st.from_regex(r"[!#$%&'*+.^_`|~0-9a-z-]{1,8}", fullmatch=True)
_values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
_parameters = st.dictionaries(_tokens, _values, max_size=4)
_targets = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<>"), max_size=20)
links = st.builds(Link, _targets, _parameters)
challenges = st.builds(Challenge, _tokens, _parameters)
scopes = st.builds(
    Scope,
    st.from_regex(r"[a-z0-9]{1,8}(?:\([a-z0-9]{1,8}\))?", fullmatch=True),
    st.from_regex(r"[!-~]{1,20}", fullmatch=True),
    st.lists(st.from_regex(r"[a-z*]{1,6}", fullmatch=True), max_size=4).map(tuple),
)
