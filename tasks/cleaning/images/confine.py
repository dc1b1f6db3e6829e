"""What a worker takes away from itself before it looks at a stranger's bytes.

Limits of the operating system hold everywhere; on x86-64 Linux a seccomp filter leaves the process
nothing but memory, clocks and the pipes that it already has: no file, socket, process or signal to
others. A forbidden call fails with EPERM.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct

from tasks.cleaning.images.limits import ImageLimits

# System calls of x86-64 by number (arch/x86/entry/syscalls/syscall_64.tbl).
ALLOWED = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "mmap": 9, "mprotect": 10,
    "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "setitimer": 38, "getpid": 39, "exit": 60,
    "getrusage": 98, "gettid": 186, "futex": 202, "restart_syscall": 219, "clock_gettime": 228,
    "exit_group": 231, "getrandom": 318, "rseq": 334,
}  # fmt: skip
PRLIMIT64 = 302
AUDIT_ARCH_X86_64 = 0xC000003E
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # EPERM
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER_MODE = 38, 22, 2


def limit_process(limits: ImageLimits) -> None:
    """Set the limits of a worker's whole life: memory, no files written, no core."""
    size = limits.memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_image(limits: ImageLimits) -> None:
    """Set the limits of the next image: CPU and elapsed time; beyond them the kernel ends us.

    The timer needs no thread and no parent: a worker whose parent was killed ends by it at the
    latest.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + limits.cpu_seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds)


def rest() -> None:
    """Stop the timer while there is no image."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)


def forbid_system_calls() -> bool:
    """Install the filter; returns whether this machine has it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    program = _program()
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    wanted = Filter(len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    # A kernel or container that has no seccomp answers with an error; the limits hold all the same.
    return bool(libc.prctl(SET_SECCOMP, FILTER_MODE, ctypes.byref(wanted), 0, 0) == 0)


def _program() -> bytes:
    """Return the filter in classic BPF (linux/filter.h): allow the list, refuse the rest.

    Limits may be set, but of the process itself alone: those of its parent would end that.
    """
    numbers = sorted(ALLOWED.values())
    lines = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        *((JUMP_EQUAL, len(numbers) - i + 5, 0, number) for i, number in enumerate(numbers)),
        (JUMP_EQUAL, 0, 4, PRLIMIT64),
        (LOAD, 0, 0, 16),  # its first argument, both halves: the process, 0 for oneself
        (JUMP_EQUAL, 0, 2, 0),
        (LOAD, 0, 0, 20),
        (JUMP_EQUAL, 1, 0, 0),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def leave(code: int) -> None:
    """End at once, without anything of Python's own ending."""
    os._exit(code)
