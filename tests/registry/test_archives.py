"""Archives into a registry's storage and out of it: whole, verified, named last; or an error in one line."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from client.archive.formats import Format
from client.transfers.content import MAX_DEPTH
from ocispec.digest import Digest
from ocispec.errors import (
    ArchiveInvalid,
    BlobUnknown,
    ConfigurationError,
    DigestInvalid,
    DigestMismatch,
    LayerhouseError,
    ManifestUnknown,
    NameInvalid,
    PathUnknown,
    PlatformUnknown,
    StorageError,
    StorageFull,
    TagInvalid,
)
from ocispec.mediatypes import OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from ocispec.platform import Platform
from ocispec.reference import Reference, RepositoryName, Tag
from registry.archives.exporting import Wanted, export_archive
from registry.archives.importing import import_archive
from registry.archives.naming import Name
from storage.engine import Engine
from storage.files import FilesEngine
from storage.memory import MemoryEngine
from storage.store import Store
from tests.client.archive.making import (
    Image,
    blob,
    cancelled_everywhere,
    described,
    docker,
    files_in,
    image,
    index_of,
    oci,
    tar,
    to_json,
    top,
)
from tests.support.images import pull_image
from tests.support.processes import REPOSITORY_ROOT, RegistryProcess, program

AMD, ARM = image("x", "y"), image("x", "z", architecture="arm64")
INDEX = index_of(AMD, ARM)
APP = Name.parse("team/app:1")
VERSION = ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def parts(*images: Image) -> list[bytes]:
    """Manifests and blobs, each once."""
    return list(dict.fromkeys(part for each in images for part in (each.manifest, *each.blobs)))


def layout(listed: bytes, blobs: Iterable[bytes]) -> list[tuple[str, bytes]]:
    return [VERSION, ("index.json", listed), *map(blob, blobs)]


def index_archive(*images: Image, name: str = "localhost:5000/team/app:1") -> list[tuple[str, bytes]]:
    return layout(top(INDEX, name, media_type=OCI_INDEX), [INDEX, *parts(*images)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(FilesEngine(tmp_path / "root"))


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[list[tuple[str, bytes]]], Path]:
    def write(members: list[tuple[str, bytes]], pack: Callable[[bytes], bytes] = bytes) -> Path:
        path = tmp_path / "image.tar"
        path.write_bytes(pack(tar(members)))
        return path

    return write


Write = Callable[..., Path]


async def brought(store: Store, path: Path, *names: str) -> list[str]:
    return [str(each) for each in await import_archive(store, path, [Name.parse(each) for each in names], _quiet)]


async def exported(store: Store, target: Path, *names: str, **wanted: Any) -> Path:
    await export_archive(store, [Name.parse(each) for each in names], target, Wanted(**wanted), _quiet)
    return target


def _quiet(_line: str) -> None:
    """Nobody listens."""


async def whole(store: Store, name: str) -> bytes:
    """The manifest under a name, after all below it was read and verified."""
    wanted = Name.parse(name)
    repository = store.repository(wanted.repository)
    raw = (await repository.manifests.get(wanted.digest or wanted.tag or Tag("latest"))).raw
    document = json.loads(raw)
    for child in document.get("manifests", ()):
        await whole(store, f"{wanted.repository}@{child['digest']}")
    for each in [document["config"], *document["layers"]] if "layers" in document else ():
        content = await repository.blobs.open(Digest.parse(each["digest"]))
        data = b"".join([piece async for piece in content.stream(0, content.size)])
        await content.close()
        assert Digest.of(data, each["digest"].partition(":")[0]) == Digest.parse(each["digest"])
        assert len(data) == each["size"]
    return raw


async def tags(store: Store) -> list[str]:
    names = (await store.catalog("", 100)).entries
    found = []
    for name in names:
        page = await store.repository(RepositoryName(name)).tags.page("", 100)
        found += [f"{name}:{tag}" for tag in page.entries]
    return found


# Into the storage.


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
async def test_an_oci_archive_comes_byte_for_byte_under_its_names_without_the_host(
    store: Store, archive: Write, pack: Callable[[bytes], bytes]
) -> None:
    path = archive(oci(AMD, "localhost:5000/team/app:1", "busybox", "team/app:2"), pack)
    assert await brought(store, path) == ["team/app:1", "library/busybox:latest", "team/app:2"]
    for name in ("team/app:1", "team/app:2", "library/busybox"):
        assert await whole(store, name) == AMD.manifest


async def test_a_layouts_folder_comes_as_its_archive_does(store: Store, tmp_path: Path) -> None:
    for name, data in oci(AMD, "team/app:1"):
        (tmp_path / "layout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "layout" / name).write_bytes(data)
    assert await brought(store, tmp_path / "layout") == ["team/app:1"]
    assert await whole(store, "team/app:1") == AMD.manifest


async def test_a_docker_archive_comes_with_its_layers_byte_for_byte(store: Store, archive: Write) -> None:
    assert await brought(store, archive(docker(AMD, "me/x:3"))) == ["me/x:3"]
    manifest = json.loads(await whole(store, "me/x:3"))
    assert [each["digest"] for each in manifest["layers"]] == [str(Digest.of(each)) for each in AMD.layers]
    assert manifest["config"]["digest"] == str(Digest.of(AMD.config))


async def test_given_names_stand_in_place_of_those_of_the_archive(store: Store, archive: Write) -> None:
    path = archive(oci(AMD, "team/app:1"))
    assert await brought(store, path, "x", "y/z:2", f"by/digest@{AMD.digest}") == [
        "x:latest",
        "y/z:2",
        f"by/digest@{AMD.digest}",
    ]
    assert await tags(store) == ["x:latest", "y/z:2"]
    assert await whole(store, f"by/digest@{AMD.digest}") == AMD.manifest


async def test_an_image_without_a_name_needs_one(store: Store, archive: Write) -> None:
    path = archive(oci(AMD))
    with pytest.raises(ArchiveInvalid, match=f"the image {AMD.digest} has no name in it: give it one"):
        await brought(store, path)
    assert await brought(store, path, "team/app:1") == ["team/app:1"]


async def test_names_are_for_one_image(store: Store, archive: Write) -> None:
    listed = {"schemaVersion": 2, "manifests": [_named(AMD.manifest, "a:1"), _named(ARM.manifest, "b:1")]}
    path = archive(layout(to_json(listed), parts(AMD, ARM)))
    with pytest.raises(ArchiveInvalid, match="names are given for one image, it holds 2"):
        await brought(store, path, "team/app:1")
    assert await tags(store) == []
    assert await brought(store, path) == ["library/a:1", "library/b:1"]
    assert await whole(store, "library/b:1") == ARM.manifest


async def test_a_name_with_another_digest_is_refused(store: Store, archive: Write) -> None:
    with pytest.raises(ArchiveInvalid, match="the image has another digest"):
        await brought(store, archive(oci(AMD, "team/app:1")), f"x:1@{ARM.digest}")
    assert await tags(store) == []


async def test_all_platforms_of_an_index_come(store: Store, archive: Write) -> None:
    assert await brought(store, archive(index_archive(AMD, ARM))) == ["team/app:1"]
    assert await whole(store, "team/app:1") == INDEX


async def test_of_an_index_comes_what_the_archive_has_of_it(store: Store, archive: Write) -> None:
    assert await brought(store, archive(index_archive(ARM))) == ["team/app:1"]
    repository = store.repository(APP.repository)
    assert (await repository.manifests.get(Tag("1"))).raw == INDEX
    assert await whole(store, f"team/app@{ARM.digest}") == ARM.manifest
    with pytest.raises(ManifestUnknown):
        await repository.manifests.get(AMD.digest)


async def test_an_index_of_which_nothing_is_there_is_refused(store: Store, archive: Write) -> None:
    with pytest.raises(ArchiveInvalid, match=r"image\.tar: sha256:.*none is there"):
        await brought(store, archive(index_archive()))
    assert await tags(store) == []


def _named(data: bytes, name: str | None, media_type: str = OCI_MANIFEST) -> dict[str, Any]:
    annotations = {"org.opencontainers.image.ref.name": name} if name else {}
    return described(data, media_type, annotations=annotations)


def artifact(subject: bytes, text: str, media_type: str = OCI_MANIFEST) -> tuple[bytes, bytes]:
    """A manifest that refers to another one, and its one layer."""
    layer = text.encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": f"application/vnd.of.{text}",
        "config": described(b"{}", OCI_EMPTY),
        "layers": [described(layer, "text/plain")],
        "subject": described(subject, media_type),
    }
    return to_json(manifest), layer


SIGNATURE, SIGNED = artifact(AMD.manifest, "signature")
COUNTER, COUNTERED = artifact(SIGNATURE, "counter")
SBOM, LISTED = artifact(INDEX, "sbom", OCI_INDEX)
REFERRERS = [SIGNATURE, SIGNED, COUNTER, COUNTERED, SBOM, LISTED, b"{}"]


async def test_what_refers_to_an_image_comes_along_without_a_name_of_its_own(store: Store, archive: Write) -> None:
    listed = {
        "schemaVersion": 2,
        # What refers to a referrer may stand before it.
        "manifests": [_named(COUNTER, None), _named(INDEX, "team/app:1", OCI_INDEX), *map(_unnamed, (SIGNATURE, SBOM))],
    }
    path = archive(layout(to_json(listed), [INDEX, *parts(AMD, ARM), *REFERRERS]))
    assert await brought(store, path, "a:1", "b:1") == ["a:1", "b:1", *map(str, _everywhere())]
    assert await tags(store) == ["a:1", "b:1"]
    for name in ("a", "b"):
        referrers = store.repository(RepositoryName(name)).referrers
        for subject, expected in ((AMD.manifest, SIGNATURE), (SIGNATURE, COUNTER), (INDEX, SBOM)):
            assert [each.digest for each in await referrers.of(Digest.of(subject))] == [Digest.of(expected)]
        assert await whole(store, f"{name}@{Digest.of(COUNTER)}") == COUNTER


def _unnamed(data: bytes) -> dict[str, Any]:
    return _named(data, None)


def _everywhere() -> list[Name]:
    return [
        Name(RepositoryName(name), digest=Digest.of(each)) for each in (SIGNATURE, SBOM, COUNTER) for name in ("a", "b")
    ]


async def test_what_refers_to_an_image_keeps_a_name_that_it_has(store: Store, archive: Write) -> None:
    listed = {
        "schemaVersion": 2,
        "manifests": [_named(AMD.manifest, "a.example/x:1"), _named(SIGNATURE, "b.example/y:s")],
    }
    path = archive(layout(to_json(listed), [*parts(AMD), *REFERRERS]))
    assert await brought(store, path) == ["x:1", "y:s"]


async def test_what_refers_to_what_it_holds_itself_is_an_image_like_any_other(store: Store, archive: Write) -> None:
    manifest = described(AMD.manifest, OCI_MANIFEST)
    own = to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest, manifest], "subject": manifest})
    path = archive(layout(top(own, "team/app:1", media_type=OCI_INDEX), [own, *parts(AMD)]))
    assert await brought(store, path) == ["team/app:1"]


async def test_what_refers_to_each_other_and_to_no_image_is_refused(store: Store, archive: Write) -> None:
    first, second = (described(each.manifest, OCI_MANIFEST) for each in (AMD, ARM))
    made = [
        to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child], "subject": subject})
        for child, subject in ((first, second), (second, first))
    ]
    named = [_named(image("z").manifest, "z:1"), *(_named(each, None, OCI_INDEX) for each in made)]
    path = archive(layout(to_json({"schemaVersion": 2, "manifests": named}), [*made, *parts(AMD, ARM, image("z"))]))
    with pytest.raises(ArchiveInvalid, match="refers to nothing that has a name"):
        await brought(store, path)


async def test_storage_that_takes_no_upload_names_nothing(archive: Write) -> None:
    class Full(MemoryEngine):
        async def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
            raise StorageFull(f"{path}: No space left on device")

    store = Store(Full())
    with pytest.raises(StorageFull):
        await brought(store, archive(oci(AMD, "team/app:1")))
    assert await tags(store) == []


async def test_an_artifact_whose_subject_is_elsewhere_is_an_image_like_any_other(store: Store, archive: Write) -> None:
    path = archive(layout(top(SIGNATURE, "team/app:sig"), [SIGNATURE, SIGNED, b"{}"]))
    assert await brought(store, path) == ["team/app:sig"]
    (found,) = await store.repository(APP.repository).referrers.of(AMD.digest)
    assert found.digest == Digest.of(SIGNATURE)


FOREIGN = described(
    b"elsewhere", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://a.example/b"]
)


async def test_a_foreign_layer_that_is_not_in_the_archive_is_left_out(store: Store, archive: Write) -> None:
    manifest = json.loads(AMD.manifest)
    manifest["layers"].append(FOREIGN)
    raw, lines = to_json(manifest), list[str]()
    path = archive(layout(top(raw, "team/app:1"), [raw, *AMD.blobs]))
    await import_archive(store, path, [], lines.append)
    assert (await store.repository(APP.repository).manifests.get(Tag("1"))).raw == raw
    assert any("left out" in each for each in lines)


async def test_what_is_done_is_told_line_by_line(store: Store, archive: Write) -> None:
    lines: list[str] = []
    path = archive(oci(AMD, "a.example/a:1", "a.example/b:1"))
    await import_archive(store, path, [], lines.append)
    config = f"  {Digest.of(AMD.config).short}  {len(AMD.config):>6} B  "
    assert lines[0].startswith("a:1: 1 manifest, 3 blobs, ")
    assert f"{config}imported" in lines
    assert f"{config}taken over from a" in lines
    assert lines[-2:] == [f"a:1: {AMD.digest}", f"b:1: {AMD.digest}"]
    lines.clear()
    await import_archive(store, path, [], lines.append)
    assert f"{config}already there" in lines
    assert not [line for line in lines if "imported" in line]


WRONG_SIZE = [(name, data + b"x" if name == blob(AMD.layers[1])[0] else data) for name, data in oci(AMD, "team/app:1")]
WRONG_BYTES = [
    (name, b"x" + data[1:] if name == blob(AMD.layers[1])[0] else data) for name, data in oci(AMD, "team/app:1")
]
WITHOUT_LAYER = [each for each in oci(AMD, "team/app:1") if each[0] != blob(AMD.layers[1])[0]]
WRONG_MANIFEST = [
    (name, b" " + data[1:] if name == blob(AMD.manifest)[0] else data) for name, data in oci(AMD, "team/app:1")
]


@pytest.mark.parametrize(
    ("members", "told"),
    [
        (WRONG_SIZE, "expected .* bytes"),
        (WRONG_BYTES, "digest"),
        (WITHOUT_LAYER, "is missing"),
        (WRONG_MANIFEST, "hashes to"),
        ([("readme", b"hello")], "expected index.json"),
        (layout(to_json({"schemaVersion": 2, "manifests": []}), []), "expected an image, it holds none"),
        (layout(top(b"{}", "a:1"), [b"{}"]), "manifest invalid"),
    ],
)
async def test_a_broken_archive_is_one_clear_line_and_names_nothing(
    store: Store, archive: Write, tmp_path: Path, members: list[tuple[str, bytes]], told: str
) -> None:
    with pytest.raises(ArchiveInvalid, match=told) as failed:
        await brought(store, archive(members))
    assert failed.value.message.startswith(f"{tmp_path}/image.tar: ")
    assert failed.value.message.count("image.tar") == 1
    assert "\n" not in failed.value.message
    assert await tags(store) == []
    assert list((tmp_path / "root").rglob("_uploads/*/data")) == []


async def test_a_docker_layer_that_is_not_the_one_of_its_config_names_nothing(store: Store, archive: Write) -> None:
    plain = image("x", "y", packed="plain")
    members = [
        (name, b"x" + data[1:] if data == plain.layers[1] else data) for name, data in docker(plain, "team/app:1")
    ]
    with pytest.raises(DigestMismatch, match=r"image\.tar: .*digest"):
        await brought(store, archive(members))
    assert await tags(store) == []


async def test_one_bad_image_keeps_all_names_away(store: Store, archive: Write) -> None:
    listed = {"schemaVersion": 2, "manifests": [_named(AMD.manifest, "a:1"), _named(ARM.manifest, "b:1")]}
    path = archive(layout(to_json(listed), [each for each in parts(AMD, ARM) if each != ARM.layers[1]]))
    with pytest.raises(ArchiveInvalid):
        await brought(store, path)
    assert await tags(store) == []


async def test_indexes_that_lie_too_deep_are_refused(store: Store, archive: Write) -> None:
    made, child = [], described(AMD.manifest, OCI_MANIFEST)
    for _ in range(MAX_DEPTH + 1):
        made.append(to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}))
        child = described(made[-1], OCI_INDEX)
    path = archive(layout(top(made[-1], "a:1", media_type=OCI_INDEX), [*made, *parts(AMD)]))
    with pytest.raises(ArchiveInvalid, match="deep in each other"):
        await brought(store, path)
    path = archive(layout(top(made[-2], "a:1", media_type=OCI_INDEX), [*made, *parts(AMD)]))
    assert await brought(store, path) == ["library/a:1"]


async def test_an_archive_that_is_not_there_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PathUnknown, match="nowhere"):
        await brought(store, tmp_path / "nowhere")


async def test_cancelled_anywhere_it_leaves_no_name_and_no_upload(tmp_path: Path, archive: Write) -> None:
    path, number = archive(oci(AMD, "team/app:1")), 0
    async for moment, cancelled in cancelled_everywhere(lambda: _into_a_fresh_root(tmp_path / "roots", path)):
        number = moment
        root = tmp_path / "roots"
        if cancelled:
            found = Store(FilesEngine(root))
            named = await tags(found)
            assert named in ([], ["team/app:1"])
            if named:
                assert await whole(found, "team/app:1") == AMD.manifest
            assert list(root.rglob("_uploads/*/data")) == []
        shutil.rmtree(root, ignore_errors=True)
    assert number > 10


async def _into_a_fresh_root(root: Path, path: Path) -> None:
    engine = FilesEngine(root)
    await engine.start()
    await brought(Store(engine), path)


# Out of the storage.


@asynccontextmanager
async def filled(engine: Engine, tmp_path: Path, members: list[tuple[str, bytes]], *names: str) -> AsyncIterator[Store]:
    store = Store(engine)
    (tmp_path / "in.tar").write_bytes(tar(members))
    await brought(store, tmp_path / "in.tar", *names)
    yield store


EVERYTHING = layout(
    to_json(
        {
            "schemaVersion": 2,
            "manifests": [_named(INDEX, "team/app:1", OCI_INDEX), *map(_unnamed, (SIGNATURE, COUNTER, SBOM))],
        }
    ),
    [INDEX, *parts(AMD, ARM), *REFERRERS],
)


@pytest.mark.parametrize("form", [Format.OCI_ARCHIVE, Format.OCI])
@pytest.mark.parametrize("referrers", [False, True])
async def test_what_goes_out_comes_in_again(tmp_path: Path, form: Format, referrers: bool) -> None:
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        out = await exported(store, tmp_path / "out", "team/app:1", format=form, referrers=referrers)
    there = Store(MemoryEngine())
    expected = [Name(APP.repository, digest=Digest.of(each)) for each in (SIGNATURE, COUNTER, SBOM)]
    names = await brought(there, out)
    assert names[0] == "team/app:1"
    assert set(names[1:]) == ({str(each) for each in expected} if referrers else set())
    assert await whole(there, "team/app:1") == INDEX
    found = await there.repository(APP.repository).referrers.of(Digest.of(SIGNATURE))
    assert [each.digest for each in found] == ([Digest.of(COUNTER)] if referrers else [])


async def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        first = await exported(store, tmp_path / "first", "team/app:1", referrers=True)
        twice = ("team/app:1", "team/app:1", f"team/app@{Digest.of(SIGNATURE)}")
        second = await exported(store, tmp_path / "second", "team/app:1", "team/app:1", referrers=True)
        third = await exported(store, tmp_path / "third", *twice, referrers=True)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


async def test_several_images_share_what_they_have_in_common(tmp_path: Path) -> None:
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        names = (f"team/app@{AMD.digest}", f"team/app@{ARM.digest}", "team/app:1")
        out = await exported(store, tmp_path / "out", *names, host="a.example:5000")
    files = files_in(out.read_bytes())
    entries = json.loads(files["index.json"])["manifests"]
    called = [each["annotations"]["org.opencontainers.image.ref.name"] for each in entries]
    assert called == [f"a.example:5000/{name}" for name in names]
    assert len([name for name in files if name.startswith("blobs/")]) == len(parts(AMD, ARM)) + 1


@pytest.mark.parametrize("platform", ["linux/arm64", "linux/amd64"])
async def test_one_platform_goes_alone(tmp_path: Path, platform: str) -> None:
    wanted = Platform.parse(platform)
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        out = await exported(store, tmp_path / "out", "team/app:1", platform=wanted)
    there = Store(MemoryEngine())
    assert await brought(there, out) == ["team/app:1"]
    assert await whole(there, "team/app:1") == (ARM if "arm" in platform else AMD).manifest


@pytest.mark.parametrize("members", [EVERYTHING, index_archive(ARM), oci(ARM, "team/app:1")])
async def test_a_docker_archive_has_one_image_for_a_name(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    async with filled(MemoryEngine(), tmp_path, members) as store:
        out = await exported(store, tmp_path / "out", "team/app:1", format=Format.DOCKER_ARCHIVE)
    listed = json.loads(files_in(out.read_bytes())["manifest.json"])
    assert [each["RepoTags"] for each in listed] == [["localhost/team/app:1"]]
    assert len(listed[0]["Layers"]) == 2


async def test_what_cannot_go_out_is_told(tmp_path: Path) -> None:
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        docker, elsewhere = {"format": Format.DOCKER_ARCHIVE}, {"platform": Platform.parse("linux/s390x")}
        refused: list[tuple[type[LayerhouseError], str, str, dict[str, Any]]] = [
            (ManifestUnknown, "team/app:2 is not in the registry", "team/app:2", {}),
            (ManifestUnknown, "nobody:latest is not in the registry", "nobody", {}),
            (PlatformUnknown, "there are: linux/amd64, linux/arm64", "team/app:1", elsewhere),
            (ConfigurationError, "holds images alone", "team/app:1", {**docker, "referrers": True}),
            (ConfigurationError, "expected a registry's host", "team/app:1", {"host": "no host"}),
            (ConfigurationError, "expected a registry's host", "team/app:1", {"host": "nohost"}),
            (ArchiveInvalid, "no container image", f"team/app@{Digest.of(SBOM)}", docker),
        ]
        for error, told, name, wanted in refused:
            with pytest.raises(error, match=told):
                await exported(store, tmp_path / "out", name, **wanted)
            assert not (tmp_path / "out").exists()


async def test_an_image_that_is_not_whole_does_not_go_out(tmp_path: Path) -> None:
    async with filled(MemoryEngine(), tmp_path, EVERYTHING) as store:
        await store.repository(APP.repository).blobs.delete(Digest.of(ARM.layers[1]))
        with pytest.raises(BlobUnknown, match=f"team/app:1 is not whole: the blob {Digest.of(ARM.layers[1])} is not"):
            await exported(store, tmp_path / "out", "team/app:1")
        # The other one is.
        await exported(store, tmp_path / "out", "team/app:1", platform=Platform.parse("linux/amd64"))


@pytest.mark.parametrize("damaged", [AMD.layers[1], AMD.config])
async def test_what_is_damaged_in_storage_does_not_go_out(tmp_path: Path, damaged: bytes) -> None:
    async with filled(FilesEngine(tmp_path / "root"), tmp_path, oci(AMD, "team/app:1")) as store:
        digest = Digest.of(damaged)
        data = tmp_path / f"root/docker/registry/v2/blobs/sha256/{digest.hex[:2]}/{digest.hex}/data"
        data.write_bytes(b"x" + damaged[1:])
        for wanted in ({}, {"format": Format.DOCKER_ARCHIVE}):
            with pytest.raises(StorageError, match=f"damaged in storage: expected {digest}, its content"):
                await exported(store, tmp_path / "out", "team/app:1", **wanted)
            assert not (tmp_path / "out").exists()


async def test_a_damaged_manifest_is_told_as_such(tmp_path: Path) -> None:
    async with filled(FilesEngine(tmp_path / "root"), tmp_path, oci(AMD, "team/app:1")):
        hexadecimal = AMD.digest.hex
        (tmp_path / f"root/docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data").write_bytes(b"{}")
        with pytest.raises(ManifestUnknown, match=r"team/app:1: manifest .* is damaged in storage"):
            await exported(Store(FilesEngine(tmp_path / "root")), tmp_path / "out", "team/app:1")


async def test_configs_that_tell_no_platform_are_no_image_for_one(tmp_path: Path) -> None:
    for config, error in (
        (b"no JSON", PlatformUnknown),
        (b'{"os":"linux","architecture":"amd64"}' + b" " * (4 << 20), StorageError),
    ):
        members = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}
        raw = to_json({**members, "config": described(config, OCI_CONFIG)})
        async with filled(MemoryEngine(), tmp_path, layout(top(raw, "a:1"), [raw, config])) as store:
            with pytest.raises(error):
                await exported(store, tmp_path / "out", "library/a:1", platform=Platform.parse("linux/amd64"))


async def test_a_foreign_layer_that_is_not_here_is_left_out(tmp_path: Path) -> None:
    manifest = json.loads(AMD.manifest)
    manifest["layers"].append(FOREIGN)
    raw = to_json(manifest)
    async with filled(MemoryEngine(), tmp_path, layout(top(raw, "team/app:1"), [raw, *AMD.blobs])) as store:
        out = await exported(store, tmp_path / "out", "team/app:1")
    assert blob(b"elsewhere")[0] not in files_in(out.read_bytes())


# Names.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app", "app:latest"),
        ("team/app", "team/app:latest"),
        ("app:1", "app:1"),
        (f"app@{AMD.digest}", f"app@{AMD.digest}"),
        (f"app:1@{AMD.digest}", f"app:1@{AMD.digest}"),
        ("a.example/app:1", "a.example/app:1"),
    ],
)
def test_names_are_read(text: str, expected: str) -> None:
    assert str(Name.parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("localhost:5000/app", NameInvalid),
        ("localhost:5000/app:1", NameInvalid),
        ("App", NameInvalid),
        ("", NameInvalid),
        ("app:", TagInvalid),
        ("app:.", TagInvalid),
        ("app@x", DigestInvalid),
        ("app@", DigestInvalid),
    ],
)
def test_what_is_no_name_is_told(text: str, error: type[LayerhouseError]) -> None:
    with pytest.raises(error):
        Name.parse(text)


@given(
    st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,5})?(/[a-z0-9]{1,5}){0,3}", fullmatch=True),
    st.sampled_from(["localhost", "127.0.0.1:5000", "a.example", "[::1]:5000"]),
    st.sampled_from([None, "1", "v1.0_x-y"]),
    st.booleans(),
)
def test_a_name_comes_back_from_an_archive_as_it_went(name: str, host: str, tag: str | None, pinned: bool) -> None:
    wanted = Name(RepositoryName(name), Tag(tag) if tag else None, AMD.digest if pinned or not tag else None)
    assert Name.parse(str(wanted)) == wanted
    assert Name.of(Reference.parse(str(wanted.at(host)))) == wanted


# The commands.


def registry(*words: str | Path, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    command = [*program("registry"), *map(str, words)]
    ended = subprocess.run(command, cwd=REPOSITORY_ROOT, input=stdin, capture_output=True, timeout=60, check=False)
    assert ended.returncode == code, ended
    return ended.stdout, ended.stderr.decode()


def test_the_commands_move_an_image_through_pipes_beside_a_running_server(
    registry_server: Callable[..., RegistryProcess], tmp_path: Path
) -> None:
    server = registry_server()
    told, errors = registry(
        "import-archive", "-", "--root", server.root, stdin=gzip.compress(tar(index_archive(AMD, ARM)))
    )
    assert errors == ""
    assert f"team/app:1: {Digest.of(INDEX)}\n" in told.decode()
    assert len(pull_image(server.host, "team/app", "1")) == len(parts(AMD, ARM)) + 1
    data, told_beside = registry("export-archive", "team/app:1", "-o", "-", "--root", server.root)
    assert told_beside.startswith("team/app:1: 3 manifests, 5 blobs, ")
    registry("import-archive", "-", "other:2", "--root", tmp_path / "there", stdin=data)
    assert asyncio.run(whole(Store(FilesEngine(tmp_path / "there")), "other:2")) == INDEX


def test_a_config_says_where_the_images_are_and_what_the_registry_is_called(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'root'}}}}}\n"
        "http: {addr: ':5000', host: 'https://a.example:8443'}\n"
    )
    (tmp_path / "in.tar").write_bytes(tar(oci(AMD, "team/app:1")))
    registry("import-archive", tmp_path / "in.tar", "--config", config)
    registry("export-archive", "team/app:1", "-o", tmp_path / "out.tar", "--config", config, "--format", "docker")
    listed = json.loads(files_in((tmp_path / "out.tar").read_bytes())["manifest.json"])
    assert listed[0]["RepoTags"] == ["a.example:8443/team/app:1"]
    registry("export-archive", "team/app:1", "-o", tmp_path / "out.tar", "--config", config, "--host", "b.example")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "out.tar").read_bytes())) as opened:
        assert "b.example/team/app:1" in opened.extractfile("index.json").read().decode()


@pytest.mark.parametrize(
    ("storage", "told"),
    [
        ("filesystem: {rootdirectory: ROOT}\n  maintenance: {readonly: {enabled: true}}", "the registry is read-only"),
        ("inmemory: {}", "storage.inmemory"),
    ],
)
def test_where_nothing_may_be_written_nothing_is(tmp_path: Path, storage: str, told: str) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage:\n  {storage.replace('ROOT', str(tmp_path / 'root'))}\nhttp: {{addr: ':5000'}}\n"
    )
    (tmp_path / "in.tar").write_bytes(tar(oci(AMD, "team/app:1")))
    _, errors = registry("import-archive", tmp_path / "in.tar", "--config", config, code=1)
    assert told in errors
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("words", "stdin", "line"),
    [
        (["import-archive", "nowhere.tar"], b"", "nowhere.tar does not exist"),
        (["import-archive", "-"], b"hello", "standard input: expected "),
        (["import-archive", "-", "localhost:5000/x"], b"", "invalid name 'localhost:5000/x': expected repository:tag"),
        (["export-archive", "team/app:1", "-o", "out.tar"], b"", "team/app:1 is not in the registry"),
        (
            ["export-archive", "a", "-o", "out.tar", "--format", "zip"],
            b"",
            "unknown format 'zip': expected oci-archive",
        ),
        (["export-archive", "a", "-o", "-", "--format", "oci"], b"", "an OCI layout is a folder"),
        (["export-archive", "a", "-o", "out.tar", "--platform", "a/b/c/d"], b"", ""),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], stdin: bytes, line: str) -> None:
    told, errors = registry(*words, "--root", tmp_path / "root", stdin=stdin, code=1)
    assert told == b""
    assert errors.startswith(f"registry: {line}")
    assert errors.count("\n") == 1
