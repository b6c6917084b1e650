"""Markers round a call: system calls that do nothing, at which whoever counts instructions stops."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from exporter.connections.agent.contract import Model

# The process group that nobody has, by which a marker is known.
MARKER = 0x5CA1AB1E
# CALLGRIND_START_INSTRUMENTATION: the fifth request of the tool "CT".
START_COUNTING = (ord("C") << 24 | ord("T") << 16) + 4


def mark() -> None:
    """Make a marker."""
    with contextlib.suppress(OSError):
        os.getpgid(MARKER)


def instrument() -> None:
    """Tell the callgrind that this process runs in to count from here on, by the request of valgrind.h for amd64.

    What comes before, the start of Python and of the runtime, then runs a few times faster. Anywhere else the code does
    nothing: it rotates a register by 128 bits in all, and exchanges another with itself.
    """
    import ctypes
    import mmap

    preamble = "48c1c703 48c1c70d 48c1c73d 48c1c733 4887db"  # rol rdi, 3, 13, 61, 51; xchg rbx, rbx
    code = bytes.fromhex(f"4889f8 31d2 {preamble} 4889d0 c3")  # mov rax, rdi; xor edx, edx; ...; mov rax, rdx; ret
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        view = ctypes.c_char.from_buffer(page)
        call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(ctypes.addressof(view))
        request = (ctypes.c_uint64 * 6)(START_COUNTING)
        call(ctypes.addressof(request))
        del view


def run_between_markers(model: Model, feed: Any) -> None:
    """Make three markers: nothing lies between the first two, a call of the model between the last two."""
    if model.run_marked is not None:
        model.run_marked(feed)
        return
    mark()
    mark()
    model.run(feed)
    mark()
