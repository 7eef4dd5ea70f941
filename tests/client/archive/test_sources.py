"""Images read where they lie: OCI layout, oci-archive, docker-archive."""

from __future__ import annotations

import gzip
import re
import tarfile
import tempfile
from pathlib import Path

import pytest
from backports import zstd

from client.archive import sources
from client.archive.sources import Source
from client.transfers.content import descend
from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ArchiveInvalid, DigestMismatch, PathUnknown, StorageError, StorageFull
from storage.layout import MAX_DOCUMENT
from tests.client.archive.making import Image, blob, docker, image, link, oci, tar, to_json, top

NAME = "docker.io/library/a:1"


def put(folder: Path, members: list[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    path = folder / "image.tar"
    path.write_bytes(tar(members))
    return path


def unpack(folder: Path, members: list[tuple[str, bytes]]) -> Path:
    for name, data in members:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


async def blobs_of(source: Source, wanted: Descriptor) -> list[bytes]:
    found = []
    for node in await descend(source.content, wanted):
        for each in node.manifest.blobs:
            async with source.content.stream(each) as pieces:
                found.append(b"".join([piece async for piece in pieces]))
    return found


@pytest.mark.parametrize("form", ["folder", "tar", "gzip", "zstd"])
async def test_an_image_layout_is_read_in_each_form(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    made = image("x", "y")
    path = unpack(tmp_path / "layout", oci(made, "a:1")) if form == "folder" else put(tmp_path, oci(made, "a:1"))
    if form in ("gzip", "zstd"):
        path.write_bytes({"gzip": gzip.compress, "zstd": zstd.compress}[form](path.read_bytes()))
    async with sources.opened(path) as source:
        ((name, found),) = source.images
        assert (name, found.digest, found.annotations) == (NAME, made.digest, {})
        assert await blobs_of(source, found) == list(made.blobs)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("packed", "media_type"),
    [
        ("plain", mediatypes.OCI_LAYER),
        ("gzip", mediatypes.OCI_LAYER_GZIP),
        ("zstd", mediatypes.OCI_LAYER_ZSTD),
    ],
)
async def test_a_docker_archive_gets_a_manifest_and_keeps_its_bytes(tmp_path: Path, packed: str, media_type: str):
    made = image("x", "y", packed=packed)
    async with sources.opened(put(tmp_path, docker(made, "a:1", "b.example/c:2"))) as source:
        (first, found), (second, same) = source.images
        assert (first, second, found) == (NAME, "b.example/c:2", same)
        (node,) = await descend(source.content, found)
        assert {each.media_type for each in node.manifest.layers} == {media_type}
        assert await blobs_of(source, found) == list(made.blobs)
    # `made` was written by another hand, in the same order: nothing of the manifest is left to chance.
    assert found.digest == Digest.of(made.manifest.replace(b", ", b",").replace(b": ", b":"))


def legacy(made: Image, target: tarfile.TarInfo) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    """As docker wrote before it wrote layouts: a folder per layer, equal layers as links."""
    config = f"{Digest.of(made.config).hex}.json"
    listed = [{"Config": config, "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    folder = link("1/", "", tarfile.DIRTYPE)
    files = [("1/VERSION", b"1.0"), ("1/json", b"{}"), ("1/layer.tar", made.layers[0]), (config, made.config)]
    return [folder, *files, target, ("manifest.json", to_json(listed)), ("repositories", b'{"a":{"1":"2"}}')]


@pytest.mark.parametrize(
    "target",
    [
        link("2/layer.tar", "../1/layer.tar"),
        link("2/layer.tar", "1/layer.tar", tarfile.LNKTYPE),
    ],
)
@pytest.mark.parametrize("packed", ["plain", "gzip"])
async def test_equal_layers_may_be_links(tmp_path: Path, target: tarfile.TarInfo, packed: str):
    made = image("x", "x", packed=packed)
    async with sources.opened(put(tmp_path, legacy(made, target))) as source:
        ((_, found),) = source.images
        assert await blobs_of(source, found) == list(made.blobs)


async def test_index_json_wins_over_manifest_json(tmp_path: Path):
    made, other = image("x"), image("y")
    async with sources.opened(put(tmp_path, [*oci(made, "a:1"), *docker(other, "b:1")])) as source:
        assert [(name, each.digest) for name, each in source.images] == [(NAME, made.digest)]


@pytest.mark.parametrize(
    ("text", "name"), [("a:1", NAME), ("quay.example/a@sha256:" + "0" * 64, ...), ("Not a name", None), ("", None)]
)
@pytest.mark.parametrize("key", ["io.containerd.image.name", "org.opencontainers.image.ref.name"])
async def test_names_are_read_as_docker_reads_them(tmp_path: Path, key: str, text: str, name: str | None):
    made = image("x")
    async with sources.opened(put(tmp_path, [("index.json", top(made.manifest, text, key=key))])) as source:
        assert source.images[0][0] == (text if name is ... else name)


async def test_an_engines_whole_name_wins_over_the_tag(tmp_path: Path):
    made = image("x")
    names = {"io.containerd.image.name": "a.example/b:1", "org.opencontainers.image.ref.name": "1", "kept": "yes"}
    entry = {"schemaVersion": 2, "manifests": [{**made.described, "annotations": names}]}
    async with sources.opened(put(tmp_path, [("index.json", to_json(entry))])) as source:
        ((name, found),) = source.images
    assert (name, found.annotations) == ("a.example/b:1", {"kept": "yes"})


async def invalid(path: Path, kind: type[Exception] = ArchiveInvalid) -> str:
    """What reading everything in an archive says; it begins with the file's name, once."""

    async def read() -> None:
        async with sources.opened(path) as source:
            for _, each in source.images:
                await blobs_of(source, each)

    with pytest.raises(kind) as raised:
        await read()
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


IMAGE = image("x", "y")
CONFIG = f"{Digest.of(IMAGE.config).hex}.json"
LAYER, CONFIG_BLOB, MANIFEST = (blob(each)[0] for each in (IMAGE.layers[1], IMAGE.config, IMAGE.manifest))


def without(members: list[tuple[str, bytes]], name: str) -> list[tuple[str, bytes]]:
    return [each for each in members if each[0] != name]


def instead(members: list[tuple[str, bytes]], name: str, data: bytes) -> list[tuple[str, bytes]]:
    return [(each, data if each == name else old) for each, old in members]


def listing(**members: object) -> bytes:
    return to_json([{"Config": CONFIG, "Layers": [f"{Digest.of(each).hex}.tar" for each in IMAGE.layers], **members}])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a", b"")], "expected index.json of an OCI layout or manifest.json of `docker save`, found neither"),
        (instead(oci(IMAGE), "index.json", b"{"), "index.json: manifest invalid: not valid JSON"),
        (instead(oci(IMAGE), "index.json", IMAGE.manifest), "index.json: expected an index, got application/vnd.oci"),
        (instead(oci(IMAGE), "index.json", b" " * (MAX_DOCUMENT + 1)), "index.json: expected at most 4194304 bytes"),
        (without(oci(IMAGE), MANIFEST), f"{MANIFEST}: expected {len(IMAGE.manifest)} bytes of .*, it is missing"),
        (without(oci(IMAGE), LAYER), f"{LAYER}: expected {len(IMAGE.layers[1])} bytes of .*, it is missing"),
        (instead(oci(IMAGE), LAYER, b"x"), f"{LAYER}: expected {len(IMAGE.layers[1])} bytes of .*, it has 1"),
        (
            instead(oci(IMAGE), MANIFEST, b"x" * len(IMAGE.manifest)),
            f"{MANIFEST}: expected {IMAGE.digest}, its content hashes to sha256:",
        ),
        ([("manifest.json", b"{}")], "manifest.json: the whole: expected a list, got an object"),
        ([("manifest.json", b"[1]")], r"manifest.json: \[0\]: expected an object, got 1"),
        ([("manifest.json", b"[{}]")], r"manifest.json: \[0\].Config: expected a string, got nothing"),
        (
            [("manifest.json", b'[{"config":"x"}]')],
            r"manifest.json: \[0\]: the name .* differs from a known one",
        ),
        ([("manifest.json", listing(RepoTags=["A:1"]))], "manifest.json: invalid repository name 'A'"),
        ([("manifest.json", listing(Config="../x"))], "manifest.json: '../x' leads out of the archive"),
        ([("manifest.json", listing(Layers=["/etc/passwd"]))], "manifest.json: '/etc/passwd' leads out of the archive"),
        (without(docker(IMAGE), CONFIG), f"{CONFIG}: expected an image's config, it is missing"),
        (instead(docker(IMAGE), CONFIG, b"[]"), f"{CONFIG}: image config invalid"),
        (instead(docker(IMAGE), "manifest.json", listing(Layers=[])), "manifest.json: expected 2 layers as its config"),
        (docker(IMAGE)[1:], f"{Digest.of(IMAGE.layers[0]).hex}.tar: expected a layer, it is missing"),
        (instead(docker(IMAGE), docker(IMAGE)[0][0], IMAGE.layers[0][:-9]), "its gzip content ends early"),
    ],
)
async def test_what_breaks_an_archive_is_said_in_one_line(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
):
    assert re.search(message, await invalid(put(tmp_path, members)))


async def test_a_compressed_layer_that_is_not_the_configs_is_refused(tmp_path: Path):
    members = docker(IMAGE, "a:1")
    wrong = instead(members, members[0][0], IMAGE.layers[1])
    message = await invalid(put(tmp_path, wrong), DigestMismatch)
    assert message.startswith(f"{members[0][0]}: expected the diff id {Digest.of(IMAGE.plain[0])}, its content")


async def test_a_config_that_is_too_large_is_not_read(tmp_path: Path):
    made = image("x")
    large = Descriptor(mediatypes.OCI_CONFIG, Digest.of(bytes(MAX_DOCUMENT + 1)), MAX_DOCUMENT + 1)
    async with sources.opened(put(tmp_path, [*oci(made, "a:1"), blob(bytes(MAX_DOCUMENT + 1))])) as source:
        with pytest.raises(ArchiveInvalid, match="expected at most 4194304 bytes"):
            await source.content.read(large)


async def test_no_tar_and_no_file(tmp_path: Path):
    (tmp_path / "text").write_text("no archive")
    assert await invalid(tmp_path / "text") == (
        "expected a tar (plain, gzip or zstd), found no header of one: truncated header"
    )
    with pytest.raises(PathUnknown, match="none does not exist"):
        async with sources.opened(tmp_path / "none"):
            pass


@pytest.mark.parametrize("name", ["x" * 300, "layout"])
async def test_what_the_system_refuses_is_said(tmp_path: Path, name: str):
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "index.json").symlink_to("y" * 300)
    with pytest.raises(StorageError, match="File name too long"):
        async with sources.opened(tmp_path / name):
            pass


async def test_an_error_of_the_reader_is_his_own(tmp_path: Path):
    with pytest.raises(ArchiveInvalid, match=r"^mine$"):
        async with sources.opened(put(tmp_path, oci(IMAGE, "a:1"))):
            raise ArchiveInvalid("mine")


@pytest.mark.peer("tmpfs")
async def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmpfs: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmpfs))
    (tmp_path / "bomb").write_bytes(gzip.compress(tar([("x", bytes(20_000_000))])))
    with pytest.raises(StorageFull, match="No space left on device"):
        async with sources.opened(tmp_path / "bomb"):
            pass
    assert list(tmpfs.iterdir()) == []
