"""Which manifests are taken, as `validation` and `policy` of the configuration have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from ocispec import mediatypes
from ocispec.descriptor import Descriptor
from ocispec.errors import Denied, ManifestInvalid
from ocispec.manifest import Manifest
from registry.config import Settings
from registry.config.patterns import matcher
from registry.config.validation import Indexes, Urls
from storage.rules import Rules

_IMAGE, _PLUGIN = "image", "plugin"
_DOCKER_PLUGIN = "application/vnd.docker.plugin.v1+json"
_CLASSES = {mediatypes.OCI_CONFIG: _IMAGE, mediatypes.DOCKER_CONFIG: _IMAGE, _DOCKER_PLUGIN: _PLUGIN}


def rules(settings: Settings) -> Rules:
    """Returns what the configuration asks of a manifest that is pushed."""
    validation, classes = settings.validation, frozenset(settings.policy.repository.classes)
    urls, indexes = validation.manifests.urls, validation.manifests.indexes
    allowed, denied = _allowed(urls) if validation.counts else _anything, _matching(urls.deny)

    def accept(manifest: Manifest) -> None:
        for descriptor in (*manifest.blobs, *manifest.manifests):
            for url in descriptor.urls:
                _require_url(url, allowed, denied if validation.counts else _nothing)
        if classes:
            _require_class(manifest, classes)

    sparse = settings.layerhouse.sparseimages and indexes.platforms is None
    return Rules(accept, _required_children(indexes) if validation.counts and not sparse else _nothing)


def _required_children(indexes: Indexes) -> Callable[[Descriptor], bool]:
    listed = {(each.os, each.architecture) for each in indexes.platformlist}
    if indexes.platforms == "none":
        return _nothing
    if indexes.platforms != "list" or not listed:
        return _anything

    def is_listed(child: Descriptor) -> bool:
        platform = child.platform
        return platform is not None and (platform.os, platform.architecture) in listed

    return is_listed


def _allowed(urls: Urls) -> Callable[[str], bool]:
    """With neither list given, no URL is allowed; with `deny` alone, all that it does not name."""
    if urls.allow:
        return _matching(urls.allow)
    return _anything if urls.deny else _nothing


def _matching(patterns: Iterable[str]) -> Callable[[str], bool]:
    matchers = [matcher(pattern) for pattern in patterns]
    return lambda url: any(matches(url) for matches in matchers)


def _require_url(url: str, allowed: Callable[[str], bool], denied: Callable[[str], bool]) -> None:
    shown = f"the manifest says that a layer lies at {url[:200]!r}"
    if not _is_plain(url):
        raise ManifestInvalid(f"{shown}: expected a URL with http or https and without a fragment")
    if not allowed(url):
        raise ManifestInvalid(f"{shown}, which validation.manifests.urls.allow does not allow", detail={"url": url})
    if denied(url):
        raise ManifestInvalid(f"{shown}, which validation.manifests.urls.deny names", detail={"url": url})


def _is_plain(url: str) -> bool:
    # Of ASCII alone (RFC 3986): then \d, \w, \s and \b of the expressions mean what they mean to RE2.
    if not url.isascii() or not url.isprintable() or "#" in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def _require_class(manifest: Manifest, classes: frozenset[str]) -> None:
    """An image's class is told by the type of its config; an index has none, and its images had to be taken before."""
    if manifest.config is None:
        return
    found = _CLASSES.get(manifest.config.media_type)
    if found is None:
        raise Denied(f"policy.repository.classes: a config of the type {manifest.config.media_type!r:.120} is no class")
    if found not in classes:
        raise Denied(f"policy.repository.classes: no {found} is taken here, only {', '.join(sorted(classes))}")


def _anything(_: object) -> bool:
    return True


def _nothing(_: object) -> bool:
    return False
