import pytest

from ocispec import mediatypes


def test_what_we_accept_we_can_read():
    accepted = mediatypes.ACCEPT.split(", ")
    assert set(accepted) == mediatypes.MANIFESTS
    assert not mediatypes.MANIFESTS & mediatypes.SCHEMA_1
    assert mediatypes.INDEXES.isdisjoint(mediatypes.IMAGES)


@pytest.mark.parametrize(
    ("header", "essence"),
    [
        ("", ""),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (f" {mediatypes.OCI_INDEX} ;x=y", mediatypes.OCI_INDEX),
        (";", ""),
    ],
)
def test_a_content_type_is_compared_without_its_parameters(header, essence):
    assert mediatypes.essence(header) == essence


@pytest.mark.parametrize(
    ("media_type", "foreign"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", True),
        (mediatypes.DOCKER_LAYER_GZIP, False),
        (mediatypes.OCI_LAYER, False),
        (mediatypes.OCI_LAYER_GZIP, False),
        (mediatypes.OCI_LAYER_ZSTD, False),
        ("", False),
    ],
)
def test_layers_that_may_lie_elsewhere_are_known(media_type, foreign):
    assert mediatypes.is_foreign(media_type) == foreign
