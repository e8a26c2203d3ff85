"""A call of a model and its answer, whatever carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from models.oip.tensors import ProtocolError, Tensor

__all__ = ["InferAnswer", "InferCall", "TensorInfo"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a model's metadata say of a tensor; -1 in a shape is any number. `columns` names the last axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InferCall:
    """What is asked of a model; `outputs` empty asks for all. `version` empty leaves the choice to the
    server.
    """

    model: str
    inputs: Sequence[Tensor]
    version: str = ""
    id: str = ""
    outputs: Sequence[str] = ()

    def input(self, name: str) -> Tensor:
        """Return its one input of this name. Raises ProtocolError where there is another or none."""
        names = [each.name for each in self.inputs]
        if names != [name]:
            raise ProtocolError(f"{self.model} takes the input {name!r} alone, and got {names}")
        return self.inputs[0]


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """A model's outputs, and the version that gave them."""

    model: str
    version: str
    outputs: Sequence[Tensor] = field(default_factory=list)
    id: str = ""

    def output(self, name: str) -> Tensor:
        """Return the output of a name. Raises ProtocolError where there is none."""
        for each in self.outputs:
            if each.name == name:
                return each
        raise ProtocolError(f"{self.model} answered {[each.name for each in self.outputs]}, and not {name!r}")
