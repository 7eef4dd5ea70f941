"""Deleting tags and manifests (distribution-spec, "Deleting tags", "Deleting Manifests")."""

from __future__ import annotations

from client.registries.api import refusal, within
from client.session import Session
from ocispec.errors import ManifestUnknown, RegistryError, Unsupported
from ocispec.reference import Reference

# Registries that cannot delete a tag say so in one of these ways (end-9).
_REFUSED = frozenset({400, 405, 501})
# What is deleted is gone at once, or about to go.
_DONE = frozenset({200, 202, 204})


async def delete_in(session: Session, reference: Reference) -> None:
    """Deletes a manifest where the reference has a digest, else its tag (end-9).

    Raises:
        Unsupported: the registry does not delete; says what can be done.
        ManifestUnknown, Denied, …: as the registry answers.
    """
    api = await session.remote(reference, "pull", "delete").pushing()
    with within(str(reference)):
        async with api.send(
            "DELETE", f"{api.endpoint.repository}/manifests/{reference.target}", again=True
        ) as response:
            if response.status in _DONE:
                return
            error = await refusal(response, ManifestUnknown)
        if response.status not in _REFUSED:
            raise error
        raise Unsupported(await _advice(session, reference, error))


async def _advice(session: Session, reference: Reference, error: RegistryError) -> str:
    digest = None if reference.digest else await session.remote(reference).head(reference.target)
    if digest is None:
        return f"the registry does not let it be deleted: {error.message}"
    return (
        "the registry deletes whole manifests, not tags alone; to delete this one with all its tags: "
        f"pullclient delete {reference.name}@{digest}"
    )
