"""Run a function in a child process, and stop it at the n-th of its file operations.

The kernel reports every system call of the child (ptrace), those of compiled libraries too. At
the chosen one the child is killed before it, killed when it is half done, or told that it failed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

Fate = Literal["killed", "half done", "EIO", "ENOSPC"]
ERRNO: dict[Fate, int] = {"EIO": 5, "ENOSPC": 28}

TRACEME, CONTINUE_TO_CALL, POKE_REGISTER, SET_OPTIONS, CALL_INFO = 0, 24, 6, 0x4200, 0x420E
SEIZE_CALLS, SEIZE_THREADS, DIES_WITH_TRACER = 1, 8, 0x100000
ALL_THREADS = 0x40000000
CALL_STOP = signal.SIGTRAP | 0x80
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
RESULT, NUMBER = 10 * 8, 15 * 8
"""Where the registers of the x86-64 lie: what a call returns, and which call it is."""
REGISTERS = tuple(8 * place for place in (14, 13, 12, 7, 9, 8))
"""The same for its six arguments."""


@dataclass(frozen=True)
class Call:
    """A system call on files.

    Attributes:
        name: Its name.
        paths: Places of arguments that are paths, each after its folder's descriptor.
        file: Place of the descriptor that is read or written, if there is one.
        length: Place of the number of bytes, if it can be done by half.
        reads: Whether it changes nothing.
    """

    name: str
    paths: tuple[int, ...] = ()
    file: int | None = None
    length: int | None = None
    reads: bool = False


CALLS = {
    0: Call("read", file=0, reads=True),
    17: Call("pread", file=0, reads=True),
    295: Call("preadv", file=0, reads=True),
    1: Call("write", file=0, length=2),
    18: Call("pwrite", file=0, length=2),
    20: Call("writev", file=0),
    296: Call("pwritev", file=0),
    40: Call("sendfile", file=0, length=3),
    326: Call("copy_file_range", file=2, length=4),
    2: Call("open", paths=(0,)),
    257: Call("openat", paths=(1,)),
    74: Call("fsync", file=0),
    75: Call("fdatasync", file=0),
    77: Call("ftruncate", file=0),
    285: Call("fallocate", file=0),
    91: Call("fchmod", file=0),
    90: Call("chmod", paths=(0,)),
    268: Call("fchmodat", paths=(1,)),
    82: Call("rename", paths=(0, 1)),
    264: Call("renameat", paths=(1, 3)),
    316: Call("renameat2", paths=(1, 3)),
    83: Call("mkdir", paths=(0,)),
    258: Call("mkdirat", paths=(1,)),
    84: Call("rmdir", paths=(0,)),
    87: Call("unlink", paths=(0,)),
    263: Call("unlinkat", paths=(1,)),
    86: Call("link", paths=(0, 1)),
    265: Call("linkat", paths=(1, 3)),
}
REMOVING = ("rmdir", "unlink", "unlinkat")


class CallInfo(ctypes.Structure):
    """What the kernel tells of a call: ``op`` is 1 before it and 2 after it."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("_padding", ctypes.c_uint8 * 3),
        ("_arch", ctypes.c_uint32),
        ("_instruction", ctypes.c_uint64),
        ("_stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


@dataclass(frozen=True)
class Outcome:
    """What became of the child.

    Attributes:
        reached: The operation it was stopped at; None if it ended before.
        status: Its exit status; negative, the signal that ended it.
        seen: How many operations there were until then.
    """

    reached: str | None
    status: int
    seen: int


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, process: int, address: int = 0, data: object = None) -> None:
    if _libc.ptrace(request, process, address, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def why_not() -> str | None:
    """Tell why this machine does not allow it.

    Returns:
        The reason, or None if it does.
    """
    if os.uname().machine != "x86_64":
        return f"the registers of {os.uname().machine} are not known here"
    try:
        outcome = stopped_at(lambda: None, 1, "killed", Path("/"), log=Path(os.devnull))
    except OSError as error:
        return f"processes may not be traced: {error}"
    return None if outcome.status == 0 else f"tracing gives {outcome}"


def stopped_at(
    act: Callable[[], object], number: int, fate: Fate, folder: Path, *, log: Path
) -> Outcome:
    """Run a function in a child, and stop it at one of its operations on files in a folder.

    Args:
        act: The function. What it raises ends the child with status 1.
        number: The operation to stop at, from 1. Those that only read count where they
            are to fail.
        fate: What to do there.
        folder: The folder.
        log: Where the child's output goes.

    Returns:
        What became of it.
    """
    child = os.fork()
    if not child:
        _run_child(act, log)
    os.waitpid(child, 0)
    _ptrace(SET_OPTIONS, child, 0, SEIZE_CALLS | SEIZE_THREADS | DIES_WITH_TRACER)
    return _follow(child, number, fate, folder)


def _run_child(act: Callable[[], object], log: Path) -> NoReturn:
    """Be the child: run the function, and end without what a Python process does at its end."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        _ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  the log tells
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _follow(child: int, number: int, fate: Fate, folder: Path) -> Outcome:
    """Let the child go from call to call; see `stopped_at`."""
    stop = _Stop(child, number, fate, folder)
    known = {child}
    _ptrace(CONTINUE_TO_CALL, child)
    while True:
        thread, state = os.waitpid(-1, ALL_THREADS)
        if not os.WIFSTOPPED(state):
            if thread == child:
                return Outcome(stop.reached, os.waitstatus_to_exitcode(state), stop.seen)
            continue
        passed_on = 0
        if os.WSTOPSIG(state) == CALL_STOP:
            stop.at_call(thread)
        elif thread in known and os.WSTOPSIG(state) != signal.SIGTRAP:
            passed_on = os.WSTOPSIG(state)
        known.add(thread)
        with suppress(ProcessLookupError):  # it was killed meanwhile
            _ptrace(CONTINUE_TO_CALL, thread, 0, passed_on)


class _Stop:
    """Counts the calls of a child, and lets its fate come at the chosen one."""

    def __init__(self, child: int, number: int, fate: Fate, folder: Path) -> None:
        self.child, self.number, self.fate, self.folder = child, number, fate, folder
        self.seen = 0
        self.reached: str | None = None
        self.failing = 0

    def at_call(self, thread: int) -> None:
        """Look at a thread that stands before a call or after it."""
        if thread == self.failing:
            self.failing = 0
            self._after(thread)
            return
        info = CallInfo()
        _ptrace(CALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info))
        call = CALLS.get(info.number) if info.op == 1 else None
        if call and _concerns(call, info, thread, self.folder, self.fate):
            self.seen += 1
            if self.seen == self.number:
                self.reached = call.name
                self._before(call, info, thread)

    def _before(self, call: Call, info: CallInfo, thread: int) -> None:
        """Kill the child, or have less done than it asked for."""
        if self.fate == "killed":
            os.kill(self.child, signal.SIGKILL)
            return
        self.failing = thread
        if self.fate == "half done":
            assert call.length is not None
            half = info.arguments[call.length] // 2
            _ptrace(POKE_REGISTER, thread, REGISTERS[call.length], half)
        else:
            _ptrace(POKE_REGISTER, thread, NUMBER, (1 << 64) - 1)

    def _after(self, thread: int) -> None:
        """Kill the child, or tell it that the call failed."""
        if self.fate == "half done":
            os.kill(self.child, signal.SIGKILL)
        else:
            _ptrace(POKE_REGISTER, thread, RESULT, -ERRNO[self.fate] & (1 << 64) - 1)


def _concerns(call: Call, info: CallInfo, thread: int, folder: Path, fate: Fate) -> bool:
    """Tell whether a call is one to count."""
    if fate == "half done" and call.length is None:
        return False
    writes = not call.reads
    if call.name.startswith("open"):
        writes = bool(info.arguments[call.paths[0] + 1] & WRITE_FLAGS)
    if not writes and fate != "EIO":
        return False
    return any(path.is_relative_to(folder) for path in _paths(call, info, thread))


def _paths(call: Call, info: CallInfo, thread: int) -> Iterator[Path]:
    """Name the files that a call is about."""
    if call.file is not None:
        yield _opened(thread, info.arguments[call.file])
    for place in call.paths:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(info.arguments[place])
            name = os.fsdecode(memory.read(4096).split(b"\0")[0])
        at = info.arguments[place - 1] if place else None
        yield Path(name) if at is None else _opened(thread, at) / name


def _opened(thread: int, descriptor: int) -> Path:
    """Name an open file, or the working folder."""
    number = ctypes.c_int(descriptor).value
    link = f"/proc/{thread}/fd/{number}" if number >= 0 else f"/proc/{thread}/cwd"
    try:
        return Path(os.readlink(link))  # noqa: PTH115
    except OSError:
        return Path(link)
