import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import GrammarError
from ocispec.platform import Platform
from tests.ocispec.strategies import descriptors

DIGEST = f"sha256:{'e' * 64}"
PLAIN = {"mediaType": "application/x", "digest": DIGEST, "size": 3}


@given(descriptors)
def test_a_descriptor_reads_back_what_it_prints(descriptor):
    assert Descriptor.from_json(json.loads(json.dumps(descriptor.to_json()))) == descriptor


@given(st.lists(descriptors, min_size=1, max_size=3))
def test_equal_descriptors_are_one_in_a_set(each):
    assert set(each) == set(each + [Descriptor.from_json(one.to_json()) for one in each])


def test_members_stand_in_the_specifications_order():
    whole = {
        **PLAIN,
        "urls": ["https://example.com/x"],
        "annotations": {"a": "b"},
        "platform": {"architecture": "amd64", "os": "windows", "os.version": "10.0.1", "variant": "v3"},
        "artifactType": "application/y",
    }
    assert json.dumps(Descriptor.from_json(whole).to_json()) == json.dumps(whole)
    assert Descriptor.from_json(PLAIN).to_json() == PLAIN


def test_what_may_be_absent_may_be_null():
    names = ("urls", "annotations", "platform", "artifactType")
    assert Descriptor.from_json({**PLAIN, **dict.fromkeys(names)}) == Descriptor(
        "application/x", Digest.parse(DIGEST), 3
    )


def test_unknown_members_are_left_out():
    assert Descriptor.from_json({**PLAIN, "data": "YWJj", "x": {}, "X": 1}).to_json() == PLAIN


def test_the_platform_is_read_in_its_normal_form():
    arm = {"os": "linux", "architecture": "aarch64", "variant": "v8"}
    assert Descriptor.from_json({**PLAIN, "platform": arm}).platform == Platform.parse("linux/arm64")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mediaType": None}, "layers[2].mediaType: expected a string, got nothing"),
        ({"mediaType": 1}, "layers[2].mediaType: expected a string, got 1"),
        ({"digest": None}, "layers[2].digest: expected a string, got nothing"),
        ({"digest": "../../x"}, "layers[2].digest: invalid digest '../../x': expected sha256:"),
        ({"digest": f"{DIGEST}\n"}, "layers[2].digest: invalid digest"),
        ({"size": None}, "layers[2].size: expected a whole number of bytes, got nothing"),
        ({"size": "3"}, 'layers[2].size: expected a whole number of bytes, got "3"'),
        ({"size": 3.0}, "layers[2].size: expected a whole number of bytes, got 3.0"),
        ({"size": True}, "layers[2].size: expected a whole number of bytes, got true"),
        ({"size": -1}, "layers[2].size: expected a whole number of bytes, got -1"),
        ({"size": 2**63}, "layers[2].size: expected a whole number of bytes, got 9223372036854775808"),
        ({"size": [[]]}, "layers[2].size: expected a whole number of bytes, got a list"),
        ({"platform": "linux"}, "layers[2].platform: expected an object"),
        ({"platform": {"os": "linux"}}, "layers[2].platform.architecture: expected a string, got nothing"),
        ({"annotations": ["a"]}, "layers[2].annotations: expected an object, got a list"),
        ({"annotations": {"a": 1}}, 'layers[2].annotations["a"]: expected a string, got 1'),
        ({"artifactType": 1}, "layers[2].artifactType: expected a string, got 1"),
        ({"urls": "https://x"}, "layers[2].urls: expected a list"),
        ({"urls": [None]}, "layers[2].urls: expected a string, got nothing"),
        ({"Digest": DIGEST}, 'layers[2]: the name "Digest" differs from a known one in case alone'),
    ],
)
def test_a_broken_member_is_named_by_its_path(changes, message):
    with pytest.raises(GrammarError) as caught:
        Descriptor.from_json({**PLAIN, **changes}, "layers[2]")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_no_descriptor(value):
    with pytest.raises(GrammarError, match="descriptor: expected an object"):
        Descriptor.from_json(value)
