"""The engine's loops as machine code: kept from an earlier process, or compiled once."""

from functools import cache
from pathlib import Path

from viddiff import native_code
from viddiff.codec.engine.instruction_sets import InstructionSet, instruction_sets
from viddiff.native_code import Native

_SOURCES = (
    "codec/engine/block_kernels.py",
    "codec/engine/instruction_sets.py",
    "codec/engine/int16_kernels.py",
    "codec/engine/kernels.py",
    "codec/engine/motion_kernels.py",
    "codec/engine/picture_kernels.py",
    "codec/engine/row_plan.py",
    "networks/enhancement_config.py",
)
"""Files that say what is compiled."""


@cache
def kernels(instructions: InstructionSet) -> dict[str, Native]:
    """The functions of `kernels.functions` by name. They are compiled if they are kept nowhere."""
    name = _file_name(instructions)
    found = native_code.load(name)
    if found is None:
        from viddiff.codec.engine.kernels import functions

        found = native_code.build(functions(instructions), name)
    return found


def _file_name(instructions: InstructionSet) -> str:
    package = Path(native_code.__file__).parent
    return native_code.kept_name(instructions.name, [package / each for each in _SOURCES])


def prepare() -> None:
    """Compile what this processor needs, unless it is kept already, before several processes need it."""
    best = instruction_sets()[0]
    if not native_code.is_kept(_file_name(best)):
        kernels(best)
