"""`layerhouse.audit`: what is written of who did what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from registry.config.values import Section

STDERR = "stderr"

Recorded = Literal["pull", "push", "delete", "mount", "login", "token", "refused", "administration"]


class Audit(Section):
    """A log of who did what, with a JSON object in each line (`docs/audit.md`)."""

    file: str | None = Field(
        default=None,
        min_length=1,
        description="The file that lines are added to, made where there is none; `stderr` for the standard error, "
        "where the log goes. Without one, there is no audit log.",
    )
    actions: tuple[Recorded, ...] = Field(
        default=("push", "delete", "mount", "login", "token", "refused", "administration"),
        min_length=1,
        description="What is written: `pull`, which is a line for each manifest and blob, `push`, `delete`, `mount`, "
        "`login` (of an identity and address one in ten minutes; each that failed), `token` (that were issued), "
        "`refused`, `administration` (of users and tokens, by commands).",
    )
