import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import ManifestInvalid
from ocispec.manifest import HistoryEntry, ImageConfig, Manifest
from ocispec.platform import Platform
from tests.ocispec.strategies import descriptors

OCI, INDEX, DOCKER, LIST = (
    mediatypes.OCI_MANIFEST, mediatypes.OCI_INDEX, mediatypes.DOCKER_MANIFEST, mediatypes.DOCKER_MANIFEST_LIST,
)  # fmt: skip
SCHEMA_1 = sorted(mediatypes.SCHEMA_1)


def blob(text, media_type=mediatypes.OCI_LAYER_GZIP, **more):
    return {"mediaType": media_type, "digest": str(Digest.of(text.encode())), "size": len(text), **more}


CONFIG, LAYER = blob("config", mediatypes.OCI_CONFIG), blob("layer")
IMAGE = {"schemaVersion": 2, "mediaType": OCI, "config": CONFIG, "layers": [LAYER, blob("other")]}
CHILDREN = [
    blob("amd64", OCI, platform={"os": "linux", "architecture": "amd64"}),
    blob("arm64", OCI, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
]
IMAGES = {"schemaVersion": 2, "mediaType": INDEX, "manifests": CHILDREN}


def raw(fields, **changes):
    return json.dumps({name: value for name, value in {**fields, **changes}.items() if value is not Ellipsis}).encode()


def refusal(content, content_type=None):
    with pytest.raises(ManifestInvalid) as caught:
        Manifest.parse(content, content_type)
    assert len(caught.value.message) < 700
    assert caught.value.message.startswith("manifest invalid: ")
    return caught.value.message.removeprefix("manifest invalid: ")


@given(descriptors, st.lists(descriptors, max_size=3), st.none() | descriptors, st.sampled_from([OCI, DOCKER]))
def test_an_image_names_every_blob_it_needs(config, layers, subject, media_type):
    fields = {"schemaVersion": 2, "mediaType": media_type, "config": config.to_json()}
    fields |= {"layers": [each.to_json() for each in layers], "subject": subject and subject.to_json()}
    manifest = Manifest.parse(raw(fields))
    assert manifest.blobs == (config, *layers)
    assert manifest.subject == subject
    assert not manifest.is_index


@given(st.lists(descriptors, max_size=3), st.sampled_from([INDEX, LIST]))
def test_an_index_names_its_children_and_needs_no_blob(children, media_type):
    fields = {"schemaVersion": 2, "mediaType": media_type, "manifests": [each.to_json() for each in children]}
    manifest = Manifest.parse(raw(fields))
    assert manifest.manifests == tuple(children)
    assert manifest.is_index
    assert manifest.blobs == ()


def test_the_bytes_are_kept_as_they_came():
    content = b" \n" + json.dumps(IMAGE, indent=7).encode() + b"\r\n\t"
    manifest = Manifest.parse(content, f"{OCI}; charset=utf-8")
    assert manifest.raw == content
    assert manifest.digest() == Digest.of(content)
    assert manifest.digest("sha512") == Digest.of(content, "sha512")
    assert str(content) not in repr(manifest)


def test_a_manifest_describes_itself_for_the_referrers_api():
    annotations = {"org.example": "x"}
    signature = raw(IMAGE, artifactType="application/sig", annotations=annotations, subject=blob("image", OCI))
    digest = Digest.of(signature)
    described = Descriptor(OCI, digest, len(signature), annotations=annotations, artifact_type="application/sig")
    assert Manifest.parse(signature).descriptor() == described
    other = Digest.of(signature, "sha512")
    assert Manifest.parse(signature).descriptor(other).digest == other


@pytest.mark.parametrize(
    ("content", "artifact_type"),
    [
        (raw(IMAGE), mediatypes.OCI_CONFIG),
        (raw(IMAGE, artifactType=""), mediatypes.OCI_CONFIG),
        (raw(IMAGE, artifactType="application/sbom"), "application/sbom"),
        (raw(IMAGE, config=blob("{}", "application/helm")), "application/helm"),
        (raw(IMAGES), None),
        (raw(IMAGES, artifactType="application/set"), "application/set"),
    ],
)
def test_the_artifact_type_falls_back_to_the_configs(content, artifact_type):
    assert Manifest.parse(content).artifact_type == artifact_type


def test_an_artifact_has_an_empty_config_and_any_layers():
    empty = blob("{}", mediatypes.OCI_EMPTY)
    manifest = Manifest.parse(raw(IMAGE, config=empty, layers=[empty], artifactType="application/x"))
    assert manifest.config == manifest.layers[0] == Descriptor.from_json(empty)
    assert Manifest.parse(raw(IMAGE, layers=None)).layers == ()
    assert Manifest.parse(raw(IMAGE, layers=[])).layers == ()


def test_a_sparse_index_is_as_good_as_a_whole_one():
    children = Manifest.parse(raw(IMAGES)).manifests
    assert [each.platform for each in children] == [Platform.parse("linux/amd64"), Platform.parse("linux/arm64")]
    assert Manifest.parse(raw(IMAGES, manifests=[blob("x", OCI)])).manifests[0].platform is None
    assert Manifest.parse(raw(IMAGES, manifests=None)).manifests == ()


def test_a_docker_list_holds_what_docker_writes():
    attestation = blob("attestation", DOCKER, platform={"os": "unknown", "architecture": "unknown"})
    windows = {"os": "windows", "architecture": "amd64", "os.version": "10.0.17763.1", "features": []}
    listed = Manifest.parse(raw(IMAGES, mediaType=LIST, manifests=[attestation, blob("w", DOCKER, platform=windows)]))
    assert listed.media_type == LIST
    assert [str(each.platform) for each in listed.manifests] == ["unknown/unknown", "windows(10.0.17763.1)/amd64"]


@pytest.mark.parametrize(
    ("content", "content_type", "media_type"),
    [
        (raw(IMAGE), None, OCI),
        (raw(IMAGE), OCI, OCI),
        (raw(IMAGE), f"{OCI.upper()} ; charset=utf-8", OCI),
        (raw(IMAGE, mediaType=...), OCI, OCI),
        (raw(IMAGE, mediaType=""), OCI, OCI),
        (raw(IMAGE, mediaType=None), DOCKER, DOCKER),
        (raw(IMAGE, mediaType=...), None, OCI),
        (raw(IMAGE, mediaType=...), "", OCI),
        (raw(IMAGE, mediaType=...), "application/json", OCI),
        (raw(IMAGE, mediaType=...), "application/octet-stream", OCI),
        (raw(IMAGE, mediaType=DOCKER), DOCKER, DOCKER),
        (raw(IMAGES, mediaType=...), None, INDEX),
        (raw(IMAGES, mediaType=...), LIST, LIST),
        (raw(IMAGES, mediaType=LIST), LIST, LIST),
    ],
)
def test_the_type_stands_inside_or_in_the_header(content, content_type, media_type):
    assert Manifest.parse(content, content_type).media_type == media_type


@pytest.mark.parametrize(
    ("content", "content_type", "reason"),
    [
        (raw(IMAGE, manifests=[]), None, "the member 'manifests' does not belong into"),
        (raw(IMAGE, manifests=None), OCI, "the member 'manifests' does not belong into"),
        (raw(IMAGE, mediaType=..., manifests=CHILDREN), None, "the member 'config' does not belong into"),
        (raw(IMAGE, mediaType=..., manifests=CHILDREN), OCI, "the member 'manifests' does not belong into"),
        (raw(IMAGE, mediaType=..., manifests=CHILDREN), INDEX, "the member 'config' does not belong into"),
        (raw(IMAGES, layers=[]), None, "the member 'layers' does not belong into"),
        (raw(IMAGES, config=CONFIG), None, "the member 'config' does not belong into"),
        (raw(IMAGE, fsLayers=[]), None, "the member 'fsLayers' does not belong into"),
        (raw(IMAGES, fsLayers=[]), None, "the member 'fsLayers' does not belong into"),
        (raw(IMAGE), INDEX, f'mediaType "{OCI}" differs from the Content-Type "{INDEX}'[:80]),
        (raw(IMAGE), DOCKER, "mediaType "),
        (raw(IMAGE), "application/json", "mediaType "),
        (raw(IMAGES), LIST, "mediaType "),
        (raw(IMAGE, Layers=[]), None, 'manifest: the name "Layers" differs from a known one in case alone'),
        (raw(IMAGE, Manifests=CHILDREN), None, 'manifest: the name "Manifests" differs'),
        (raw(IMAGE, mediatype=INDEX), None, 'manifest: the name "mediatype" differs'),
        (raw(IMAGE, config={**CONFIG, "SIZE": 1}), None, 'config: the name "SIZE" differs'),
        (raw(IMAGE)[:-1] + b', "layers": []}', None, "the name 'layers' stands twice in one object"),
        (raw(IMAGE).replace(b'"size"', b'"size": 1, "size"', 1), None, "the name 'size' stands twice in one object"),
        (raw(IMAGE, annotations={"x": float("nan")}), None, "NaN is not a JSON number"),
    ],
)
def test_what_two_readers_could_take_for_two_things_is_refused(content, content_type, reason):
    assert refusal(content, content_type).startswith(reason)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (raw({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": []}), None),
        (raw({"schemaVersion": 1, "name": "x", "fsLayers": [], "signatures": []}), SCHEMA_1[1]),
        (raw(IMAGE, schemaVersion=1), OCI),
        (raw(IMAGE, mediaType=SCHEMA_1[0]), None),
        (raw(IMAGE, mediaType=...), SCHEMA_1[0]),
        (raw(IMAGE, mediaType=...), f"{SCHEMA_1[1]}; charset=utf-8"),
    ],
)
def test_schema_1_is_refused_with_the_way_out(content, content_type):
    sentence = "schema 1 is not supported: push the image again with docker 1.10 or newer"
    assert refusal(content, content_type) == sentence


@pytest.mark.parametrize(
    ("content", "content_type", "reason"),
    [
        (raw(IMAGE, mediaType="application/x"), None, 'unknown media type "application/x": expected an OCI or Docker'),
        (raw(IMAGE, mediaType="x" * 4096), None, 'unknown media type "xxx'),
        (raw(IMAGE, mediaType=f"{OCI}\n"), None, "unknown media type"),
        (raw(IMAGE, mediaType=OCI.upper()), None, "unknown media type"),
        (raw(IMAGE, mediaType=...), "text/html", 'unknown media type "text/html"'),
        (raw(IMAGE, mediaType=[]), None, "mediaType: expected a string, got a list"),
        (raw(IMAGE, mediaType={}), None, "mediaType: expected a string, got an object"),
        (raw(IMAGE, mediaType=2), None, "mediaType: expected a string, got 2"),
        (raw(IMAGE, schemaVersion=...), None, "schemaVersion: expected 2, got nothing"),
        (raw(IMAGE, schemaVersion="2"), None, 'schemaVersion: expected 2, got "2"'),
        (raw(IMAGE, schemaVersion=2.0), None, "schemaVersion: expected 2, got 2.0"),
        (raw(IMAGE, schemaVersion=3), None, "schemaVersion: expected 2, got 3"),
        (raw(IMAGE, schemaVersion=[[]]), None, "schemaVersion: expected 2, got a list"),
        (raw(IMAGE, config=...), None, "config: expected an object, got nothing"),
        (raw(IMAGE, layers=...), None, "layers: expected a list, got nothing"),
        (raw(IMAGE, layers={}), None, "layers: expected a list, got an object"),
        (raw(IMAGE, layers=[LAYER, None]), None, "layers[1]: expected an object, got nothing"),
        (raw(IMAGE, layers=[LAYER, LAYER, {**LAYER, "size": None}]), None, "layers[2].size: expected a whole number"),
        (raw(IMAGE, config={**CONFIG, "digest": "sha256:x"}), None, "config.digest: invalid digest 'sha256:x'"),
        (raw(IMAGE, subject={}), None, "subject.mediaType: expected"),
        (raw(IMAGE, subject=[]), None, "subject: expected an object"),
        (raw(IMAGE, annotations={"a": None}), None, 'annotations["a"]: expected a string'),
        (raw(IMAGE, artifactType={}), None, "artifactType: expected a string"),
        (raw(IMAGES, manifests=...), None, "manifests: expected a list, got nothing"),
        (raw(IMAGES, manifests=[{}]), None, "manifests[0]."),
        (raw(IMAGES, manifests=[{**CHILDREN[0], "platform": {}}]), None, "manifests[0].platform.os: expected"),
        (b"", None, "not valid JSON"),
        (b"null", None, "manifest: expected an object, got nothing"),
        (b"[]", None, "manifest: expected an object, got a list"),
        (b'"x"', None, 'manifest: expected an object, got "x"'),
    ],
)
def test_a_broken_manifest_is_refused_by_the_members_path(content, content_type, reason):
    assert refusal(content, content_type).startswith(reason)


@pytest.mark.timeout(20)  # a guard against super-linear work
@pytest.mark.parametrize(
    "junk",
    [b"\0", b"[", b"9", b'{"a":', b'"a",', b'{"a":0},', b"\xff", b" ", b'"\\ud800'],
    ids=["nul", "lists", "digits", "objects", "strings", "small objects", "no text", "space", "surrogates"],
)
def test_four_megabytes_of_junk_are_refused_with_one_line(junk):
    content = junk * ((4 << 20) // len(junk))
    for whole in (content, b"[" + content + b"0]", b'{"schemaVersion": [' + content + b"0]}"):
        assert refusal(whole, OCI)


@pytest.mark.parametrize("depth", [900, 970, 985, 990])
def test_a_value_that_just_decodes_is_refused_too(depth):
    deep = "[" * depth + "]" * depth
    assert refusal(f'{{"schemaVersion": 2, "config": {{"size": {deep}}}, "layers": []}}'.encode())
    assert refusal(f'{{"schemaVersion": {deep}}}'.encode())


@given(st.binary() | st.text().map(str.encode), st.text())
def test_no_bytes_do_more_than_be_refused(content, content_type):
    for parse in (Manifest.parse, lambda content, _: ImageConfig.parse(content)):
        with suppress(ManifestInvalid):
            parse(content, content_type)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = (
    *IMAGE,
    *IMAGES,
    "subject",
    "annotations",
    "artifactType",
    "fsLayers",
    "rootfs",
    "history",
    "os",
    "architecture",
)


@given(st.sampled_from([IMAGE, IMAGES]), st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4))
def test_no_member_does_more_than_be_refused(fields, changes):
    for parse in (Manifest.parse, ImageConfig.parse):
        with suppress(ManifestInvalid):
            assert parse(raw(fields, **changes)).raw == raw(fields, **changes)


SETTINGS = {"Env": ["TARGET=blog.sixeyed.com"], "Cmd": ["node", "/web-ping/app.js"], "Labels": {"a": "1", "A": "2"}}
IDS = [str(Digest.of(b"one")), str(Digest.of(b"two"))]
WEB_PING = {
    "architecture": "arm64", "variant": "v8", "os": "linux", "created": "2021-03-04T05:06:07Z", "config": SETTINGS,
    "rootfs": {"type": "layers", "diff_ids": IDS},
    "history": [{"created": "2021-03-04T05:06:07Z", "created_by": "COPY app.js"}, {"empty_layer": True}],
}  # fmt: skip


def test_an_image_config_tells_how_to_run_the_image():
    content = raw(WEB_PING)
    assert ImageConfig.parse(content) == ImageConfig(
        content,
        Platform.parse("linux/arm64"),
        (Digest.of(b"one"), Digest.of(b"two")),
        (HistoryEntry("COPY app.js", created="2021-03-04T05:06:07Z"), HistoryEntry(empty_layer=True)),
        SETTINGS,
        "2021-03-04T05:06:07Z",
    )


def test_a_config_may_say_nothing_but_its_platform():
    absent = dict.fromkeys(("config", "history", "created", "rootfs", "variant"))
    content = raw(WEB_PING, **absent)
    assert ImageConfig.parse(content) == ImageConfig(content, Platform.parse("linux/arm64"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"os": None}, "platform.os: expected a string, got nothing"),
        ({"architecture": 1}, "platform.architecture: expected a string, got 1"),
        ({"rootfs": []}, "rootfs: expected an object, got a list"),
        ({"config": False}, "config: expected an object, got false"),
        ({"rootfs": "x"}, "rootfs: expected an object"),
        ({"rootfs": {"diff_ids": 1}}, "rootfs.diff_ids: expected a list, got 1"),
        ({"rootfs": {"diff_ids": [IDS[0], "sha256:../x"]}}, "rootfs.diff_ids[1]: invalid digest 'sha256:../x'"),
        ({"rootfs": {"diff_ids": [1]}}, "rootfs.diff_ids[0]: expected a string, got 1"),
        ({"history": {"a": 1}}, "history: expected a list, got an object"),
        ({"history": [None]}, "history[0]: expected an object, got nothing"),
        ({"history": [{"created_by": []}]}, "history[0].created_by: expected a string, got a list"),
        ({"history": [{"created": 1}]}, "history[0].created: expected a string, got 1"),
        ({"config": "x"}, 'config: expected an object, got "x"'),
        ({"created": {}}, "created: expected a string, got an object"),
    ],
)
def test_a_broken_config_is_refused_by_the_members_path(changes, reason):
    with pytest.raises(ManifestInvalid) as caught:
        ImageConfig.parse(raw(WEB_PING, **changes))
    assert caught.value.message.startswith(f"image config invalid: {reason}")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"os": "a", "os": "b"}', b"[" * 100_000, b"\xff"])
def test_what_is_no_config_is_refused(content):
    with pytest.raises(ManifestInvalid, match="image config invalid: "):
        ImageConfig.parse(content)
