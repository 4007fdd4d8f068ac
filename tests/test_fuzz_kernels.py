"""Guarded memory notices what leaves an array, and kernels leave none."""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import fuzz_kernels
import numpy as np
import pytest

SCRIPT = Path(fuzz_kernels.__file__)


@pytest.mark.parametrize(("at_end", "index"), [(True, 10), (False, -1)])
def test_the_page_beside_an_array_cannot_be_read(at_end: bool, index: int) -> None:
    code = f"""if True:
        import ctypes
        from fuzz_kernels import GuardedMemory
        array = GuardedMemory({at_end}).zeros(10, "int16")
        ctypes.c_int16.from_address(array.ctypes.data + 2 * {index}).value
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True)
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize(("at_end", "index"), [(True, -1), (False, 10)])
def test_what_is_written_beside_an_array_is_noticed(at_end: bool, index: int) -> None:
    memory = fuzz_kernels.GuardedMemory(at_end)
    array = memory.array(np.arange(10), np.int16)
    assert array.tolist() == list(range(10))
    memory.check()
    ctypes.c_int16.from_address(array.ctypes.data + 2 * index).value = 1
    with pytest.raises(ValueError, match="beside an array"):
        memory.check()


def test_kernels_stay_inside_their_arrays() -> None:
    code = "import fuzz_kernels; [fuzz_kernels.run_case(seed) for seed in range(6)]"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
