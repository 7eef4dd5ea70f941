"""Each layer beside the instruction that made it, as builders really write histories."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.caching.history import instruction, steps
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.manifest import ImageConfig
from ocispec.mediatypes import OCI_LAYER


def layer(text: str) -> Descriptor:
    return Descriptor(OCI_LAYER, Digest.of(text.encode()), len(text))


def config(*history: dict[str, object]) -> ImageConfig:
    return ImageConfig.parse(json.dumps({"os": "linux", "architecture": "amd64", "history": history}).encode())


@pytest.mark.parametrize(
    ("written", "stands"),
    [
        # docker's old builder
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c #(nop) ADD file:5d68d in / ", "ADD file:5d68d in /"),
        ("/bin/sh -c apt-get update     && apt-get install", "RUN apt-get update && apt-get install"),
        ("|2 A=b C=d e /bin/sh -c make install", "RUN make install"),
        ("|0 /bin/sh -c make", "RUN make"),
        ("cmd /S /C #(nop) WORKDIR C:\\app", "WORKDIR C:\\app"),
        ("cmd /S /C dir", "RUN dir"),
        # BuildKit
        ("RUN /bin/sh -c npm ci # buildkit", "RUN npm ci"),
        ("RUN |1 VERSION=1.2 /bin/sh -c make VERSION=$VERSION # buildkit", "RUN make VERSION=$VERSION"),
        ("COPY app.js . # buildkit", "COPY app.js ."),
        ('ENTRYPOINT ["node" "app.js"]', 'ENTRYPOINT ["node" "app.js"]'),
        ("RUN /bin/bash -o pipefail -c a | b # buildkit", "RUN /bin/bash -o pipefail -c a | b"),
        ("RUN /bin/sh -c echo '# buildkit' > a # buildkit", "RUN echo '# buildkit' > a"),
        # others
        ("bazel build ...", "bazel build ..."),
        ("RUN /bin/sh -c cat <<EOF\n\tone\nEOF # buildkit", "RUN cat <<EOF one EOF"),
        ("COPY \x1b[31mred\x07", "COPY ?[31mred?"),
    ],
)
def test_an_instruction_reads_as_in_the_dockerfile(written: str, stands: str):
    assert instruction(written) == stands


@given(st.text())
def test_any_text_makes_one_printable_line(text: str):
    assert instruction(text).isprintable()


def test_layers_and_empty_steps_stand_in_the_order_of_the_dockerfile():
    made = steps(
        [layer("base"), layer("app")],
        config(
            {"created_by": "ADD rootfs", "created": "2026-01-02T03:04:05Z"},
            {"created_by": "ENV A=b", "empty_layer": True},
            {"created_by": "COPY app ."},
            {"empty_layer": True},
        ),
    )
    assert [(each.instruction, each.size) for each in made] == [
        ("ADD rootfs", 4),
        ("ENV A=b", 0),
        ("COPY app .", 3),
        ("-", 0),
    ]
    assert made[0].to_json() == {
        "digest": str(Digest.of(b"base")),
        "size": 4,
        "created": "2026-01-02T03:04:05Z",
        "instruction": "ADD rootfs",
        "createdBy": "ADD rootfs",
    }
    assert made[3].to_json()["instruction"] is None
    assert made[1].to_json()["digest"] is None


@pytest.mark.parametrize("told", [None, config(), config({"created_by": "ADD a"}, {"created_by": "ADD b"})])
def test_a_history_of_other_layers_names_none(told: ImageConfig | None):
    (step,) = steps([layer("only")], told)
    assert (step.instruction, step.size, step.created) == ("-", 4, None)


@given(st.lists(st.booleans(), max_size=20))
def test_every_layer_stands_once_and_in_its_order(empty: list[bool]):
    layers = [layer(str(n)) for n in range(empty.count(False))]
    made = steps(layers, config(*({"created_by": "x", "empty_layer": each} for each in empty)))
    assert [each.layer for each in made if each.layer] == layers
    assert [each.layer is None for each in made] == empty
