"""A limit on what reading a file may cost. It is counted, because a few bytes of a pickle can ask for any amount."""

from __future__ import annotations

from ddo_plugin.base.limits import advice, raised
from ddo_plugin.snapshots.pickles.nodes import LimitError

MOST_OPCODES = 1_000_000  # the largest published network needs less than a tenth; each opcode costs time
_TIMES, _SPARE = 4, 256 << 20
_OPCODE = 256  # bytes of what an opcode leaves: an empty set, an entry of a dict
ENTRY = 128  # bytes of an entry in a copied dict or set
OBJECT = 1024  # bytes of an object of ours, such as a tensor without its numbers


class Allowance:
    """The memory and the instructions that one file may use, pickles inside the pickle included."""

    def __init__(self, size: int) -> None:
        self.nbytes = raised(_TIMES * size + _SPARE)
        self.opcodes = raised(MOST_OPCODES)

    def step(self) -> None:
        """Count one opcode."""
        self.opcodes -= 1
        if self.opcodes < 0:
            raise LimitError(f"more than {raised(MOST_OPCODES):,} opcodes; {advice()}")
        self.take(_OPCODE)

    def take(self, nbytes: int) -> None:
        """Count memory, if possible before it is reserved."""
        self.nbytes -= nbytes
        if self.nbytes < 0:
            raise LimitError(f"it asks for much more memory than it has bytes; {advice()}")
