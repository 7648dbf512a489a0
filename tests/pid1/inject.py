"""Makes another process call the kernel, to see what it may: as somebody could
who has taken it over. By ptrace(2), on x86-64; root only.

The process has to be waiting in a system call. It makes ours in its place, with
its own rights, and then goes on waiting as if nothing had been.
"""

import ctypes
import errno
import os
import signal

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p,
                        ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long

SINGLESTEP, GETREGS, SETREGS, ATTACH, DETACH = 9, 12, 13, 16, 17
WALL = 0x40000000
# Numbers of x86-64.
CALLS = {'close': 3, 'kill': 62, 'mount': 165, 'openat': 257}
AT_FDCWD = -100
SYSCALL = b'\x0f\x05'
RED_ZONE = 4096


class Registers(ctypes.Structure):
    """struct user_regs_struct"""
    _fields_ = [(name, ctypes.c_ulong) for name in (
        'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax '
        'rip cs eflags rsp ss fs_base gs_base ds es fs gs').split()]


def ptrace(request, pid, data=None):
    if LIBC.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), f'ptrace {request}')


def call(pid, name, *arguments):
    """The result of a system call that `pid` makes, or the name of its error;
    'killed' when it dies of it. Strings are put where its stack will be."""
    ptrace(ATTACH, pid)
    os.waitpid(pid, WALL)
    try:
        result = step(pid, CALLS[name], arguments)
    except ProcessLookupError:
        return 'killed'
    if result is None:
        return 'killed'
    ptrace(DETACH, pid)
    return errno.errorcode[-result] if -4096 < result < 0 else result


def opens(pid, path, flags=os.O_RDONLY):
    """Whether `pid` can open a file, or the name of the error."""
    result = call(pid, 'openat', AT_FDCWD, path, flags, 0o600)
    if isinstance(result, int):
        call(pid, 'close', result)
        return True
    return result


def step(pid, number, arguments):
    before, regs = Registers(), Registers()
    ptrace(GETREGS, pid, ctypes.byref(before))
    ptrace(GETREGS, pid, ctypes.byref(regs))
    with open(f'/proc/{pid}/mem', 'r+b', buffering=0) as memory:
        memory.seek(before.rip - 2)
        assert memory.read(2) == SYSCALL, 'it does not wait in a system call'
        place = before.rsp - RED_ZONE
        for register, value in zip('rdi rsi rdx r10'.split(), arguments):
            if isinstance(value, str):
                data = value.encode() + b'\0'
                place -= len(data)
                memory.seek(place)
                memory.write(data)
                value = place
            setattr(regs, register, ctypes.c_ulong(value).value)
    regs.rip = before.rip - 2
    regs.rax = number
    regs.orig_rax = ctypes.c_ulong(-1).value  # nothing to begin anew
    ptrace(SETREGS, pid, ctypes.byref(regs))
    ptrace(SINGLESTEP, pid)
    _, status = os.waitpid(pid, WALL)
    if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
        return None
    ptrace(GETREGS, pid, ctypes.byref(regs))
    ptrace(SETREGS, pid, ctypes.byref(before))
    return ctypes.c_long(regs.rax).value
