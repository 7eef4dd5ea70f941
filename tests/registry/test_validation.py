"""Which manifests are taken: `validation` and `policy`, key by key, as Distribution has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocispec import mediatypes
from registry.config import Settings, load
from registry.config.patterns import matcher
from registry.config.values import ConfigError
from storage.memory import MemoryEngine
from tests.support.api import Answer, Api, image, index, serving
from tests.support.images import MANIFEST, sha256

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
PLUGIN = "application/vnd.docker.plugin.v1+json"
ABSENT = sha256(b"absent")
EXAMPLE = {"allow": [r"^https?://([^/]+\.)*example\.com/"], "deny": [r"^https?://www\.example\.com/"]}


def configured(urls: Any = None, indexes: Any = None, classes: Any = (), **validation: Any) -> Settings:
    manifests = {"urls": urls or {}, "indexes": indexes or {}}
    return Settings.model_validate(
        {"validation": {"manifests": manifests, **validation}, "policy": {"repository": {"classes": classes}}}
    )


async def push_foreign(api: Api, *urls: str, kind: str = FOREIGN) -> Answer:
    layer = {"mediaType": kind, "digest": ABSENT, "size": 5, "urls": list(urls)}
    return await api.push_manifest("image", "v1", {**image(await api.push_blob("image", b"{}")), "layers": [layer]})


@pytest.mark.parametrize("kind", [FOREIGN, DOCKER_FOREIGN])
@pytest.mark.parametrize(
    ("settings", "url", "taken"),
    [
        (configured(), "https://example.com/x", False),
        (configured(enabled=False), "https://example.com/x", False),
        (configured(disabled=True), "https://example.com/x", True),
        (configured(disabled=True, enabled=True), "https://example.com/x", False),
        (configured({"allow": ["example"]}, disabled=True), "http://elsewhere.org/x", True),
        (configured({"deny": ["example"]}, disabled=True), "http://example.com/x", True),
        (configured({"allow": ["example"]}), "https://example.com/x", True),
        (configured({"allow": ["^example"]}), "https://example.com/x", False),
        (configured({"allow": ["a.org", "b.org"]}), "http://b.org/", True),
        (configured({"deny": ["example"]}), "https://example.com/x", False),
        (configured({"deny": ["example"]}), "https://elsewhere.org/x", True),
        (configured(EXAMPLE), "https://layers.example.com/x", True),
        (configured(EXAMPLE), "https://www.example.com/x", False),
        (configured(EXAMPLE), "https://example.com.evil.org/x", False),
    ],
)
async def test_a_url_is_taken_where_allow_and_deny_let_it(settings: Settings, url: str, taken: bool, kind: str) -> None:
    async with serving(MemoryEngine(), settings) as api:
        answer = await push_foreign(api, url, kind=kind)
        assert answer.status == (201 if taken else 400)
        if not taken:
            assert answer.code == "MANIFEST_INVALID"
            assert url in answer.message
            assert "validation.manifests.urls." in answer.message
            assert (await api.get("/v2/image/manifests/v1")).status == 404


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.org/x", "file:///etc/passwd", "/x", "", "a.org/x"),
        *("https://a.org/x#part", "https://", "http://[/", "https://é.org/", "https://a.org/\n"),
    ],
)
async def test_what_is_no_plain_url_is_never_taken(url: str) -> None:
    for settings in (configured(disabled=True), configured({"allow": [""]})):
        async with serving(MemoryEngine(), settings) as api:
            answer = await push_foreign(api, "https://a.org/fine", url)
            assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")
            assert "expected a URL with http or https" in answer.message


async def test_one_url_of_many_that_is_denied_is_enough() -> None:
    async with serving(MemoryEngine(), configured(EXAMPLE)) as api:
        assert (await push_foreign(api, "https://a.example.com/", "https://www.example.com/")).status == 400
        assert (await push_foreign(api, "https://a.example.com/", "https://b.example.com/")).status == 201


async def test_a_url_made_for_an_expression_that_goes_back_takes_no_time() -> None:
    async with serving(MemoryEngine(), configured(EXAMPLE)) as api:
        assert (await push_foreign(api, f"https://{'a.' * 100_000}!")).status == 400


@pytest.mark.parametrize("key", ["allow", "deny"])
@pytest.mark.parametrize("pattern", ["(", "a(?=b)", r"(a)\1", "*", "[", "a{5,2}"])
def test_what_is_no_regular_expression_is_an_error_at_the_start(tmp_path: Path, key: str, pattern: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: ':5000'}\n"
        f"validation: {{manifests: {{urls: {{{key}: ['fine', '{pattern}']}}}}}}\n"
    )
    with pytest.raises(ConfigError, match=rf"validation\.manifests\.urls\.{key}.*no regular expression: \w"):
        load(file)


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        (r"(?i)EXAMPLE", "https://example.com", True),
        (r"^https://a\.org/\d+$", "https://a.org/17", True),
        (r"(?P<host>a|b)\.org", "http://b.org", True),
        (r"[[:digit:]]\z", "x1", True),
        (r"\/\/", "http://x", True),
        ("", "anything", True),
        ("^$", "anything", False),
    ],
)
def test_expressions_are_read_as_go_reads_them(pattern: str, text: str, holds: bool) -> None:
    assert matcher(pattern)(text) is holds


def child(digest: str, platform: str | None = None) -> dict[str, Any]:
    described: dict[str, Any] = {"mediaType": MANIFEST, "digest": digest, "size": 300}
    if platform:
        system, architecture = platform.split("/")
        described["platform"] = {"os": system, "architecture": architecture}
    return described


LISTED = {"platforms": "list", "platformlist": [{"os": "linux", "architecture": "amd64"}]}
SPARSE = Settings.model_validate({"layerhouse": {"sparseimages": True}})


@pytest.mark.parametrize(
    ("settings", "absent", "taken"),
    [
        (configured(), "linux/arm64", False),
        (configured(), None, False),
        (configured(disabled=True), "linux/amd64", True),
        (configured(indexes={"platforms": "ALL"}), "linux/arm64", False),
        (configured(indexes={"platforms": "none"}), "linux/amd64", True),
        (configured(indexes={"platforms": "none", "platformlist": LISTED["platformlist"]}), "linux/amd64", True),
        (configured(indexes=LISTED), "linux/arm64", True),
        (configured(indexes=LISTED), "windows/amd64", True),
        (configured(indexes=LISTED), "linux/amd64", False),
        (configured(indexes=LISTED), None, True),
        (configured(indexes={"platforms": "list"}), "linux/arm64", False),
        (SPARSE, "linux/arm64", True),
        (SPARSE.model_copy(update={"validation": configured(indexes=LISTED).validation}), "linux/amd64", False),
    ],
)
async def test_an_index_is_taken_where_the_children_it_needs_are_there(
    settings: Settings, absent: str | None, taken: bool
) -> None:
    async with serving(MemoryEngine(), settings) as api:
        present = await api.push_image("image", "child")
        whole = index(child(present, "linux/amd64"), child(present))
        assert (await api.push_manifest("image", "whole", whole)).status == 201
        answer = await api.push_manifest("image", "v1", index(child(present, "linux/amd64"), child(ABSENT, absent)))
        assert answer.status == (201 if taken else 404)
        if not taken:
            assert (answer.code, answer.json["errors"][0]["detail"]) == (
                "MANIFEST_BLOB_UNKNOWN",
                [{"digest": ABSENT}],
            )


async def test_a_child_in_another_repository_or_without_its_bytes_is_not_there() -> None:
    engine = MemoryEngine()
    async with serving(engine, configured()) as api:
        elsewhere = await api.push_image("elsewhere", "v1", b"1")
        here = await api.push_image("image", "v1", b"2")
        assert (await api.push_manifest("image", "v2", index(child(here)))).status == 201
        assert (await api.push_manifest("image", "v3", index(child(elsewhere)))).status == 404
        await engine.delete("docker/registry/v2/blobs")
        assert (await api.push_manifest("image", "v4", index(child(here)))).status == 404


@pytest.mark.parametrize(
    ("classes", "config", "told"),
    [
        ((), "application/x.anything", None),
        (("image",), mediatypes.OCI_CONFIG, None),
        (("image",), mediatypes.DOCKER_CONFIG, None),
        (("plugin", "image"), PLUGIN, None),
        (("plugin",), PLUGIN, None),
        (("image",), PLUGIN, "no plugin is taken here, only image"),
        (("plugin",), mediatypes.OCI_CONFIG, "no image is taken here, only plugin"),
        (("image",), "application/x.anything", "'application/x.anything' is no class"),
        (("image",), mediatypes.OCI_EMPTY, "is no class"),
    ],
)
async def test_images_are_taken_whose_class_is_listed(classes: tuple[str, ...], config: str, told: str | None) -> None:
    async with serving(MemoryEngine(), configured(classes=classes)) as api:
        manifest = image(await api.push_blob("image", b"{}"))
        manifest["config"]["mediaType"] = config
        answer = await api.push_manifest("image", "v1", manifest)
        assert answer.status == (403 if told else 201)
        if told:
            assert answer.code == "DENIED"
            assert "policy.repository.classes" in answer.message
            assert told in answer.message
        assert (await api.push_manifest("image", "v2", index())).status == 201


async def test_without_a_file_everything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    async with serving(MemoryEngine(), settings) as api:
        assert (await push_foreign(api, "https://anywhere.org/x")).status == 201
        assert (await api.push_manifest("image", "v2", index(child(ABSENT, "linux/amd64")))).status == 201
    monkeypatch.setenv("REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS", "all")
    async with serving(MemoryEngine(), load()) as api:
        assert (await api.push_manifest("image", "v2", index(child(ABSENT, "linux/amd64")))).status == 404
