import platform as python_platform
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import GrammarError
from ocispec.platform import Platform, best
from tests.ocispec.strategies import UNCLEAN, platforms


@given(platforms)
def test_a_platform_reads_back_what_it_prints(platform):
    assert Platform.parse(str(platform)) == platform


@given(platforms)
def test_a_platform_reads_back_from_its_json(platform):
    assert Platform.from_json(platform.to_json()) == platform


@given(platforms)
def test_an_image_for_exactly_this_platform_is_best(platform):
    assert platform.rank(platform) == 0
    assert len(set(platform.runs())) == len(platform.runs())


@given(st.text() | st.text("avx/v.1()"))
def test_every_text_has_one_normal_form_or_is_refused(text):
    with suppress(GrammarError):
        assert Platform.parse(str(Platform.parse(text))) == Platform.parse(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/x86-64/v1", "linux/amd64"),
        ("linux/amd64/3", "linux/amd64/v3"),
        ("linux/Aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm64/9.0", "linux/arm64/v9"),
        ("linux/arm/V6", "linux/arm/v6"),
        ("linux/arm/7", "linux/arm"),
        ("linux/arm/v07", "linux/arm"),
        ("linux/armhf", "linux/arm"),
        ("linux/armhf/v6", "linux/arm"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armv8l", "linux/arm/v8"),
        ("linux/i386", "linux/386"),
        ("linux/loongarch64", "linux/loong64"),
        ("linux/ppc64le/power10", "linux/ppc64le/power10"),
        ("macOS/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("arm64", "linux/arm64"),
        ("s390x", "linux/s390x"),
        ("armel", "linux/arm/v6"),
    ],
)
def test_a_platform_may_be_written_in_many_ways(text, normal):
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize(("text", "os"), [("linux", "linux"), ("Windows", "windows"), ("macos", "darwin")])
def test_a_system_alone_is_of_this_machines_architecture(text, os):
    here = Platform.here()
    assert Platform.parse(text) == Platform(os, here.architecture, here.variant)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "linux/", "/amd64", "linux//v8", "linux/amd64/", "/linux/arm", "linux/arm/v7/x", "linux/&arm", "*",
        "linux/*", "linux /arm", "windows()/amd64", "windows(10.0/amd64", "windows(10.0)", "linux/arm(1)",
        "linux/" * 2048,
        *(f"linux/amd64{each}" for each in UNCLEAN),
        *(f"{each}linux/amd64" for each in UNCLEAN),
        *(f"linux{each}/amd64" for each in UNCLEAN),
    ],
)  # fmt: skip
def test_what_is_no_platform_is_refused_with_a_short_reason(text):
    with pytest.raises(GrammarError, match="expected os/architecture") as caught:
        Platform.parse(text)
    assert len(caught.value.message) < 2000


# What containerd's own tests say runs where.
VECTORS = {
    "linux/amd64": "amd64 386",
    "linux/amd64/v2": "amd64/v2 amd64 386",
    "linux/amd64/v4": "amd64/v4 amd64/v3 amd64/v2 amd64 386",
    "linux/amd64/odd": "amd64/odd 386",
    "linux/386": "386",
    "linux/arm/v8": "arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/arm/v7": "arm/v7 arm/v6 arm/v5",
    "linux/arm/v6": "arm/v6 arm/v5",
    "linux/arm/v5": "arm/v5",
    "linux/arm/v4": "arm/v4",
    "linux/arm64": "arm64/v8 arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/arm64/v8.1": "arm64/v8.1 arm64/v8 arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/arm64/v9": "arm64/v9 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64/v8"
    " arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/arm64/v9.2": "arm64/v9.2 arm64/v9.1 arm64/v9 arm64/v8.7 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3"
    " arm64/v8.2 arm64/v8.1 arm64/v8 arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/arm64/v9.6": "arm64/v9.6 arm64/v9.5 arm64/v9.4 arm64/v9.3 arm64/v9.2 arm64/v9.1 arm64/v9 arm64/v8.9"
    " arm64/v8.8 arm64/v8.7 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64/v8"
    " arm/v8 arm/v7 arm/v6 arm/v5",
    "linux/ppc64le/power10": "ppc64le/power10 ppc64le",
    "linux/s390x": "s390x",
}


@pytest.mark.parametrize(("wanted", "images"), VECTORS.items())
def test_older_processors_images_run_too_the_nearest_first(wanted, images):
    assert Platform.parse(wanted).runs() == tuple(Platform.parse(f"linux/{each}") for each in images.split())


@pytest.mark.parametrize(
    ("wanted", "image"),
    [
        ("linux/amd64", "linux/amd64/v2"),
        ("linux/amd64", "windows/amd64"),
        ("linux/amd64", "linux/arm64"),
        ("linux/386", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v9"),
        ("linux/arm64/v9", "linux/arm64/v8.6"),
        ("linux/arm64", "linux/arm64/v7"),
        ("linux/arm64", "linux/arm/v4"),
        ("linux/arm64", "darwin/arm64"),
        ("linux/arm/v6", "linux/arm"),
        ("linux/amd64", "unknown/unknown"),
        ("windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64"),
    ],
)
def test_what_does_not_run_here_is_never_chosen(wanted, image):
    assert Platform.parse(wanted).rank(Platform.parse(image)) is None


def choose(wanted, *images):
    return best(Platform.parse(wanted), [(Platform.parse(image), image) for image in images])


def test_the_nearest_image_is_chosen_whatever_the_order():
    assert choose("linux/arm64/v9", "linux/arm", "linux/arm64", "linux/arm64/v8.5") == "linux/arm64/v8.5"
    assert choose("linux/amd64", "linux/386", "unknown/unknown", "linux/amd64") == "linux/amd64"
    assert choose("linux/amd64", "linux/386") == "linux/386"
    assert choose("linux/s390x", "linux/amd64") is None
    assert choose("linux/s390x") is None


def test_of_equal_images_the_first_is_chosen():
    wanted = Platform.parse("linux/arm64")
    assert best(wanted, [(Platform.parse("linux/arm64/v8"), "first"), (wanted, "second")]) == "first"


def test_windows_images_need_the_same_build_where_both_say_one():
    images = "windows(10.0.20348.2113)/amd64", "windows(10.0.17763.5329)/amd64"
    assert choose("windows(10.0.17763)/amd64", *images) == images[1]
    assert choose("windows(10.0.17763.1)/amd64", *images) == images[1]
    assert choose("windows/amd64", *images) == images[0]
    assert choose("windows(10.0.17763)/amd64", "windows/amd64") == "windows/amd64"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, "p: expected an object, got nothing"),
        ([], "p: expected an object, got a list"),
        ({}, "p.os: expected a string, got nothing"),
        ({"os": "linux"}, "p.architecture: expected a string, got nothing"),
        ({"os": 1, "architecture": "amd64"}, "p.os: expected a string, got 1"),
        ({"os": "linux", "architecture": "arm", "variant": 7}, "p.variant: expected a string, got 7"),
        ({"os": "linux", "architecture": "arm", "os.version": []}, "p.os.version: expected a string, got a list"),
    ],
)
def test_a_broken_platform_is_named_with_its_place(value, place):
    with pytest.raises(GrammarError) as caught:
        Platform.from_json(value, "p")
    assert caught.value.message == place


def test_what_tools_really_write_is_read():
    assert Platform.from_json({"os": "", "architecture": ""}) == Platform("", "")
    assert str(Platform.from_json({"os": "unknown", "architecture": "unknown"})) == "unknown/unknown"
    assert Platform.from_json({"os": "linux", "architecture": "arm64", "variant": "v8", "os.features": ["x"]}) == (
        Platform("linux", "arm64")
    )


def test_this_machine_runs_its_own_images():
    here = Platform.here()
    assert here == Platform.parse(f"{'windows' if sys.platform == 'win32' else 'linux'}/{python_platform.machine()}")
    assert best(here, [(here, "mine")]) == "mine"
