"""How an image was made: each layer beside the instruction of the Dockerfile that made it (image-spec, config.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.wording import one_line
from ocispec.descriptor import Descriptor
from ocispec.manifest import HistoryEntry, ImageConfig

_BUILDKIT = "# buildkit"
_SHELL = r"(?:/bin/sh -c|cmd /S /C)"
# What docker's old builder wrote for an instruction that runs nothing.
_NOTHING = re.compile(rf"{_SHELL} #\(nop\) *(.*)", re.DOTALL)
# `|2 A=b C=d` are the build arguments that a command saw.
_COMMAND = re.compile(rf"(?:RUN )?(?:\|\d+ (?:.*? )?)?{_SHELL} (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, and the layer that it made.

    Attributes:
        layer: None where it made none.
        created_by: the instruction as the builder noted it, None where the image does not tell.
        created: RFC 3339 time, as it stands.
    """

    layer: Descriptor | None
    created_by: str | None
    created: str | None

    @property
    def instruction(self) -> str:
        """The instruction as it stands in a Dockerfile, in one line; `-` where the image does not tell."""
        return instruction(self.created_by) if self.created_by else "-"

    @property
    def size(self) -> int:
        return self.layer.size if self.layer else 0

    def to_json(self) -> dict[str, Any]:
        return {
            "digest": str(self.layer.digest) if self.layer else None,
            "size": self.size,
            "created": self.created,
            "instruction": self.instruction if self.created_by else None,
            "createdBy": self.created_by,
        }


def steps(layers: Sequence[Descriptor], config: ImageConfig | None) -> tuple[Step, ...]:
    """Returns the steps, the base first, as in a Dockerfile.

    A history that tells of more or fewer layers than there are says of none which instruction made it: then the layers
    stand alone.
    """
    history = config.history if config else ()
    if sum(not each.empty_layer for each in history) != len(layers):
        return tuple(Step(each, None, None) for each in layers)
    waiting = iter(layers)
    return tuple(_step(None if each.empty_layer else next(waiting), each) for each in history)


def instruction(created_by: str) -> str:
    """Returns what stands in the Dockerfile, without what docker's builders put around it.

    `/bin/sh -c #(nop)  CMD ["sh"]` is `CMD ["sh"]`; `/bin/sh -c make`, `|1 A=b /bin/sh -c make` and
    `RUN /bin/sh -c make # buildkit` are `RUN make`.
    """
    text = created_by.strip().removesuffix(_BUILDKIT).rstrip()
    if nothing := _NOTHING.fullmatch(text):
        return one_line(nothing[1])
    command = _COMMAND.fullmatch(text)
    return one_line(f"RUN {command[1]}" if command else text)


def _step(layer: Descriptor | None, entry: HistoryEntry) -> Step:
    return Step(layer, entry.created_by or None, entry.created)
