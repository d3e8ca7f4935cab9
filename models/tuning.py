"""What a processor does faster: memory that is kept, and arithmetic in bfloat16, whose roundings training sees."""

from __future__ import annotations

import ctypes
import sys

import torch

__all__ = ["bfloat16_pays", "keep_memory"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
_KEPT = (1 << 31) - 1  # bytes; the options are ints
_AT_ONCE = 1 << 28


def keep_memory() -> bool:
    """Let this process keep freed memory for the next tensor instead of giving it back to the system.

    Every step frees and takes the same hundreds of megabytes, and fresh pages cost a fault each: a third of the time
    of training on a CPU. Only glibc has these options; False elsewhere.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    options = {_M_MMAP_THRESHOLD: _KEPT, _M_TRIM_THRESHOLD: _KEPT, _M_TOP_PAD: _AT_ONCE}
    taken = [library.mallopt(option, value) == 1 for option, value in options.items()]
    return all(taken)


def bfloat16_pays(device: torch.device) -> bool:
    """Whether convolutions are faster in bfloat16 there: on GPUs, and on CPUs with instructions for it.

    Without them it was ten times slower than float32.
    """
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return device.type == "cuda"
