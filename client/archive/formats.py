"""What `save` writes, and what it cannot."""

from __future__ import annotations

from enum import StrEnum

from ocispec.errors import ConfigurationError


class Format(StrEnum):
    """docker-archive and oci-archive are files, oci is a folder."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_ARCHIVE = "oci-archive"
    OCI = "oci"


def checked(format: Format | str, *, stream: bool, platform: bool, all_platforms: bool) -> Format:  # noqa: A002 - its name
    """Returns the format.

    Args:
        format: or its value.
        stream: whether it goes into an open file and not to a path.
        platform: whether one platform is asked for.
        all_platforms: whether all are.

    Raises:
        ConfigurationError: there is no such format, or the arguments contradict each other.
    """
    if format not in list(Format):
        raise ConfigurationError(f"unknown format {format!r}: expected {', '.join(each.value for each in Format)}")
    if all_platforms and platform:
        raise ConfigurationError("one platform and all platforms exclude each other")
    if all_platforms and format == Format.DOCKER_ARCHIVE:
        raise ConfigurationError("a docker-archive holds one platform per name: save all as oci-archive or oci")
    if stream and format == Format.OCI:
        raise ConfigurationError("an OCI layout is a folder: give its path, or save an oci-archive")
    return Format(format)
