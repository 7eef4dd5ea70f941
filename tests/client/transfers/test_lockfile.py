"""A lock file reads well, changes by lines, and names what is wrong with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.session import Session
from client.transfers.lockfile import HEAD, Entry, Lock, Locked, lock_in, parse, read
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, LayerhouseError, ManifestUnknown, PathUnknown, StorageError
from ocispec.reference import Reference
from tests.client.scripted import Reply, ScriptedRegistry

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")

names = st.sampled_from(["a", "b.example/c", "localhost:5000/d/e", "docker.io/library/nginx"])
references = st.builds(
    lambda name, tag, content: Reference.parse(f"{name}{tag}@{Digest.of(content)}"),
    names,
    st.sampled_from(["", ":1", ":latest"]),
    st.binary(max_size=2),
)
comments = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp"), blacklist_characters="\x85"), max_size=9
)
notes = comments.map(lambda text: f"#{text}".strip())
entries = st.builds(Entry, references, st.lists(notes, max_size=2).map(tuple), st.one_of(st.just(""), notes))


async def lock(path: Path, *given_names: str) -> list[Locked]:
    async with Session() as session:
        return await lock_in(session, path, [Reference.parse(each) for each in given_names])


@given(st.lists(entries, max_size=5, unique_by=lambda each: each.name), st.lists(notes, max_size=2).map(tuple))
def test_what_is_written_is_read_again(found: list[Entry], tail: tuple[str, ...]):
    whole = Lock(HEAD, tuple(sorted(found, key=lambda each: each.name)), tail)
    assert parse(str(whole), "x") == whole


@given(st.text(max_size=200))
def test_any_text_is_a_lock_or_an_error_with_its_line(text: str):
    try:
        parse(text, "x.lock")
    except ArchiveInvalid as error:
        assert re.match(r"x\.lock:\d+: ", error.message)  # noqa: PT017 - both ends are fine


async def test_names_are_locked_by_the_digests_that_they_have(registry: ScriptedRegistry, tmp_path: Path):
    path = tmp_path / "images.lock"
    second, first = registry.publish("b", "2", [b"y"]).digest, registry.publish("a", "1", [b"x"]).digest
    done = await lock(path, f"{registry.host}/b:2", f"{registry.host}/a:1")
    assert [str(each.reference) for each in done] == [f"{registry.host}/a:1@{first}", f"{registry.host}/b:2@{second}"]
    assert path.read_text() == "\n".join([*HEAD, "", *(str(each.reference) for each in done), ""])
    assert read(path) == tuple(each.reference for each in done)
    assert registry.paths() == []  # a HEAD costs nothing of a limit
    assert [each.name for each in tmp_path.iterdir()] == ["images.lock"]
    before = path.stat()
    assert [each.before for each in await lock(path)] == [Digest.parse(first), Digest.parse(second)]
    assert path.stat() == before  # what did not change is not written


async def test_alone_a_file_is_renewed_and_its_comments_stay(registry: ScriptedRegistry, tmp_path: Path):
    path = tmp_path / "images.lock"
    new = registry.publish("a", "1", [b"x"]).digest
    text = f"# ours\n\n# why b\n{{}}/b@{TWO}\n# why a\n# at length\n{{}}/a:1@{{}}  # here\n# end\n"
    registry.behaviours[f"/v2/b/manifests/{TWO}"] = Reply(200, b"", {"Docker-Content-Digest": str(TWO)})
    path.write_text(text.format(registry.host, registry.host, ONE))
    done = await lock(path)
    assert [(each.reference.digest, each.before) for each in done] == [(Digest.parse(new), ONE), (TWO, TWO)]
    host = registry.host
    assert path.read_text() == (
        f"# ours\n\n# why a\n# at length\n{host}/a:1@{new}  # here\n# why b\n{host}/b@{TWO}\n# end\n"
    )


async def test_named_images_are_added_or_renewed_and_the_others_stay(registry: ScriptedRegistry, tmp_path: Path):
    path = tmp_path / "images.lock"
    registry.publish("a", "1", [b"x"])
    path.write_text(f"{registry.host}/z:9@{ONE}\n")
    await lock(path, f"{registry.host}/a:1")
    assert [each.repository for each in read(path)] == ["a", "z"]
    assert read(path)[1].digest == ONE


async def test_a_digest_that_is_given_stays_and_has_to_exist(registry: ScriptedRegistry, tmp_path: Path):
    path = tmp_path / "images.lock"
    old = registry.publish("a", "1", [b"x"]).digest
    registry.publish("a", "1", [b"y"])
    await lock(path, f"{registry.host}/a:1@{old}")
    assert str(read(path)[0]) == f"{registry.host}/a:1@{old}"
    with pytest.raises(ManifestUnknown):
        await lock(path, f"{registry.host}/a:1@{ONE}")


async def test_a_registry_that_does_not_say_the_digest_is_asked_for_the_manifest(
    registry: ScriptedRegistry, tmp_path: Path
):
    digest = registry.publish("a", "1", [b"x"]).digest
    whole = registry.behaviours["/v2/a/manifests/1"]
    registry.behaviours["/v2/a/manifests/1"] = Reply(200, whole.body, {"Content-Type": whole.headers["Content-Type"]})
    (done,) = await lock(tmp_path / "images.lock", f"{registry.host}/a:1")
    assert str(done.reference.digest) == digest


async def test_where_one_name_fails_nothing_is_written(registry: ScriptedRegistry, tmp_path: Path):
    registry.publish("a", "1", [b"x"])
    with pytest.raises(ManifestUnknown, match=f"^{registry.host}/b:1: "):
        await lock(tmp_path / "images.lock", f"{registry.host}/a:1", f"{registry.host}/b:1")
    assert list(tmp_path.iterdir()) == []


async def test_a_link_leads_to_the_file_that_is_meant(registry: ScriptedRegistry, tmp_path: Path):
    registry.publish("a", "1", [b"x"])
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    await lock(tmp_path / "link", f"{registry.host}/a:1")
    assert (tmp_path / "link").is_symlink()
    assert len(read(tmp_path / "real")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nginx:1.27\n", r":1: expected an image with its digest, like .*, not 'nginx:1.27'$"),
        (f"# fine\n\nnginx@{ONE}\nUpper@{TWO}\n", ":4: expected .*: invalid repository name 'Upper'"),
        (f"a:1@{ONE}\na:1@{TWO}\n", f":2: docker.io/library/a:1 stands there twice, first .*{ONE}"),
        ("a@sha256:12\n", ":1: expected .*: invalid digest"),
        (b"\xff", " is no lock file: it is not UTF-8"),
        (b"#" * (4 * 1024 * 1024 + 1), " is no lock file: it is longer than"),
    ],
)
async def test_what_is_wrong_is_named_with_its_line_and_the_file_stays(text: str | bytes, message: str, tmp_path: Path):
    path = tmp_path / "images.lock"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ArchiveInvalid, match=re.escape(str(path)) + message):
        read(path)
    with pytest.raises(LayerhouseError):
        await lock(path, "localhost:1/a:1")


async def test_a_file_that_is_not_there_needs_names(tmp_path: Path):
    with pytest.raises(PathUnknown, match=r"images\.lock does not exist: name the images that it is to lock$"):
        await lock(tmp_path / "images.lock")


async def test_a_file_that_cannot_be_read_is_said(tmp_path: Path):
    with pytest.raises(StorageError, match="Is a directory"):
        await lock(tmp_path)
