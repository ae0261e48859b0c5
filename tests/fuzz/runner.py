"""Try many mutated files in a process that may crash, hang or eat memory without harm."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from subvocab.errors import SubvocabError
from tests.fuzz.targets import Target

MEMORY_BYTES = 1 << 30
"""What a few kilobytes from a stranger may make a process ask for, at the very most."""
SECONDS = 20
LONGEST_MESSAGE = 3_000
"""Characters; a message is for people."""
MOST_FAULTS = 50


class Hang(BaseException):
    """A file took too long."""


class Outside(BaseException):
    """A file was opened that nobody named."""


@dataclass(frozen=True)
class Fault:
    """A mutated file that was not refused in the right way.

    Attributes:
        target: What read it.
        seed: Makes the same file again.
        what: What happened.
    """

    target: str
    seed: int
    what: str


@dataclass
class Result:
    """What came of many files.

    Attributes:
        refused: How many were refused in the right way.
        read: How many were accepted.
        faults: The others.
        seconds: How long it took.
    """

    refused: int = 0
    read: int = 0
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0


def mutated(name: str, target: Target, whole: bytes, seed: int) -> bytes:
    """Make the mutated file of a number.

    Args:
        name: Of the target.
        target: The target.
        whole: Its whole file.
        seed: The number.

    Returns:
        The file.
    """
    return target.mutate(whole, Random(f"{name} {seed}"))  # noqa: S311  it is no secret


@dataclass(frozen=True)
class Ground:
    """Where the files of one target are tried.

    Attributes:
        name: Of the target.
        target: The target.
        folder: What it reads lies there.
        whole: Its whole file.
        beside: What else lies beside the folder.
        log: Where a child writes what came of its files.
        place: The number of the file that a child is at, in shared memory.
    """

    name: str
    target: Target
    folder: Path
    whole: bytes
    beside: frozenset[str]
    log: Path
    place: mmap.mmap


def run(name: str, target: Target, seeds: range) -> Result:
    """Try files in processes of their own, a new one after each that ended early.

    Args:
        name: Of the target.
        target: The target.
        seeds: The numbers of the files.

    Returns:
        What came of them.
    """
    result, begin = Result(), time.perf_counter()
    shared = Path("/dev/shm")  # noqa: S108  memory: disks are not what is tried
    where = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="subvocab-fuzz-", dir=where) as parent:
        folder, log = Path(parent, "in"), Path(parent, "log")
        folder.mkdir()
        target.prepare(folder)
        log.touch()
        beside = frozenset(entry.name for entry in folder.parent.iterdir())
        whole = (folder / target.file).read_bytes()
        ground = Ground(name, target, folder, whole, beside, log, mmap.mmap(-1, 8))
        left = seeds
        while left and len(result.faults) < MOST_FAULTS:
            ground.place[:] = left.start.to_bytes(8, "little")
            status = _forked(ground, left)
            for line in log.read_text().splitlines():
                _take(name, json.loads(line), result)
            if any(fault.seed < 0 for fault in result.faults):
                break
            reached = int.from_bytes(ground.place[:], "little")
            if status:
                result.faults.append(Fault(name, reached, f"the process ended with {status}"))
            left = range(reached + 1, seeds.stop)
    result.seconds = time.perf_counter() - begin
    return result


def _take(name: str, line: dict[str, Any], result: Result) -> None:
    """Add what a process wrote down."""
    if "what" in line:
        result.faults.append(Fault(name, line["seed"], line["what"]))
    else:
        result.refused += line["refused"]
        result.read += line["read"]


def _forked(ground: Ground, seeds: range) -> int:
    """Try files in a child, and end it if it does not come on."""
    child = os.fork()
    if not child:
        _be_child(ground, seeds)
    last, since = b"", time.monotonic()
    while True:
        done, state = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(state)
        if ground.place[:] != last:
            last, since = ground.place[:], time.monotonic()
        elif time.monotonic() - since > 3 * SECONDS:  # nothing in Python could stop it
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def _be_child(ground: Ground, seeds: range) -> NoReturn:
    """Be the child: try the files, and write down what came of them."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # a child must not outlive the run
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        with ground.log.open("w", buffering=1) as written, guarded(ground.folder.parent):
            _try_all(ground, seeds, written)
        status = 0
    except BaseException as error:  # noqa: BLE001  what is wrong before anything is mutated
        ground.log.write_text(json.dumps({"seed": -1, "what": _told(error)}) + "\n")
    finally:
        os._exit(status)


def _try_all(ground: Ground, seeds: range, written: Any) -> None:
    """Try the files one after the other."""
    os.chdir(ground.folder)
    target, path = ground.target, ground.folder / ground.target.file
    _clear(ground)
    path.write_bytes(ground.whole)
    target.read(ground.folder)  # imports, compiles, and is right when nothing is wrong
    counts = {"refused": 0, "read": 0}
    for seed in seeds:
        ground.place[:] = seed.to_bytes(8, "little")
        _clear(ground)
        path.write_bytes(mutated(ground.name, target, ground.whole, seed))
        what = None
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            target.read(ground.folder)
            counts["read"] += 1
        except SubvocabError as error:
            counts["refused"] += 1
            if len(str(error)) > LONGEST_MESSAGE:
                what = f"a message of {len(str(error)):,} characters: {str(error)[:200]}"
        except BaseException as error:  # noqa: BLE001  panics of compiled libraries, too
            what = _told(error)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if what is not None:
            written.write(json.dumps({"seed": seed, "what": what}) + "\n")
    written.write(json.dumps(counts) + "\n")


def _clear(ground: Ground) -> None:
    """Remove what the last file made its reader write."""
    for entry in ground.folder.parent.iterdir():
        if entry.name not in ground.beside:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _told(error: BaseException) -> str:
    """Say what was raised, and where."""
    at = traceback.extract_tb(error.__traceback__)[-4:]
    frames = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in at)
    return f"{type(error).__name__}: {error}"[:300] + f" in {frames}"


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Bound memory and time, and refuse to open what lies elsewhere.

    Args:
        folder: Where files may be opened, beside those of Python and its libraries.

    Yields:
        Nothing. The hook stays, so this is for processes of their own.
    """

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
            path = os.path.abspath(arguments[0])  # noqa: PTH100
            if path != spills and not path.startswith((str(folder), *allowed)):
                raise Outside(f"{event} {path}")

    def stop(*_: object) -> None:
        raise Hang(f"after {SECONDS} s")

    checkout = str(Path(__file__).resolve().parents[2])
    libraries = (sys.prefix, sys.base_prefix, checkout, "/usr/")
    spills = tempfile.gettempdir()
    allowed = (*libraries, "/proc/", "/sys/", "/dev/null", f"{spills}/subvocab-")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, stop)
    sys.addaudithook(refuse)
    yield
