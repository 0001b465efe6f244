"""What the trainer asks of the memory allocator.

A step makes and frees the same large tensors again and again. glibc gives each back to the kernel at once, and getting
it again costs a page fault per 4 KiB: on a CPU about a fifth of a step. So freed memory is kept within a job and given
back after it, because the machine serves answers too.
"""

import ctypes
import gc
from contextlib import suppress

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_TENSOR_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Once per process, before the first large tensor. Without glibc it does nothing."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_TENSOR_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def free_scratch() -> None:
    """Give everything that a job left behind back to the machine."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """torch has a type for CUDA only; on the CPU it raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
