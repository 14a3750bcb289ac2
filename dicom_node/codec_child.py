"""The process that codecs run in: what it may do is taken away before they see a byte.

``python -m dicom_node.codec_child SOCKET PARENT`` is started by
:mod:`dicom_node.codec_process` and by nobody else. It loads the codecs once, gives up
what it will not need, and then decodes nothing itself: for every request it makes a copy
of itself that decodes, answers and ends, so that what one object does to its process
never meets the next.

A copy may use as much memory, time and output as its request allows, open no network
connection where the kernel lets us have an empty network, gain no privilege, and leave
no core file. It ends when the process that asked is gone. System calls are not filtered
here: whoever takes over a codec can still read what the node's user can read, so the
node's files deserve the service manager's protection as well.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import resource
import signal
import socket
import sys
from typing import Any, Final

import numpy as np

from dicom_node.decoding import CodedImage, decode_frames
from dicom_node.errors import FilterError

_ANSWER_BYTES: Final = 4096  # fits a pipe, so that no copy waits for its reader

# linux/prctl.h, linux/sched.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def main(control: socket.socket, parent: int) -> None:
    """Serve requests from ``control`` until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Sent to all of a service at once: who asked is still waiting for its answer,
        # and ends us when it has it.
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # a copy that collects would copy every page it looks at
    gc.disable()
    _give_up()
    _end_with(parent)
    control.send(json.dumps({"ready": os.getpid()}).encode())
    while True:
        request, files, _, _ = socket.recv_fds(control, 65536, 2)
        if not request:
            return
        control.send(json.dumps(_served(control, json.loads(request), files)).encode())


def _served(
    control: socket.socket, request: dict[str, Any], files: list[int]
) -> dict[str, Any]:
    """Return what became of the copy that decodes ``request``."""
    own = os.getpid()
    reading, writing = os.pipe()
    copy = os.fork()
    if copy == 0:
        # Nothing but this may happen here, not even an exception's way up.
        try:
            control.close()
            os.close(reading)
            _end_with(own)
            _limit(request)
            os.write(writing, json.dumps(_decoded(request, *files)).encode())
        finally:
            os._exit(0)
    for file in (writing, *files):
        os.close(file)
    _, status, used = os.wait4(copy, 0)
    answer = os.read(reading, _ANSWER_BYTES).decode("utf-8", "replace")
    os.close(reading)
    killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    memory = 1024 * used.ru_maxrss
    return {"signal": killed_by, "memory": memory, "answer": answer}


def _decoded(request: dict[str, Any], coded: int, words: int) -> dict[str, Any]:
    """Decode the frames in the file ``coded`` into the file ``words``."""
    try:
        count = request["frames"]
        sizes = np.frombuffer(_read(coded, 8 * count, 0), "<u8").tolist()
        frames, position = [], 8 * count
        for size in sizes:
            frames.append(_read(coded, size, position))
            position += size
        decoded = decode_frames(CodedImage(**request["image"]), frames)
        view = decoded.words.data.cast("B")
        written = 0
        while written < len(view):
            written += os.pwrite(words, view[written:], written)
    except FilterError as error:
        return {"failed": type(error).__name__, "says": [str(error), error.hint]}
    except Exception as error:  # noqa: BLE001 named, told and judged by who asked
        return {"failed": "MemoryError" if _is_memory(error) else type(error).__name__}
    return {"photometric_interpretation": decoded.photometric_interpretation}


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError)  # numpy's are of a kind of their own


def _read(file: int, size: int, position: int) -> bytes:
    """Return ``size`` bytes; a short file is a mistake of ours and found out later."""
    parts = []
    while size and (part := os.pread(file, size, position)):
        parts.append(part)
        size, position = size - len(part), position + len(part)
    return b"".join(parts)


def _limit(request: dict[str, Any]) -> None:
    """Take from this process all but what a request allows."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 nothing else is loaded
        pages = int(statm.read().split()[0])
    memory = pages * resource.getpagesize() + request["memory"]
    seconds = math.ceil(request["cpu_s"]) + 1
    for what, wanted in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, request["output"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
    ):
        _, hard = resource.getrlimit(what)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (most, most))
    # Finer than RLIMIT_CPU, and a clock on the wall for what only sleeps. Both kill.
    signal.setitimer(signal.ITIMER_PROF, request["cpu_s"])
    signal.setitimer(signal.ITIMER_REAL, request["wall_s"])


def _give_up() -> None:
    """Give up the network, new privileges and capabilities, as far as we may."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        # Not as root: only in a user namespace, which a container may forbid too.
        _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _libc.capset(header, (ctypes.c_uint32 * 6)())
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _end_with(parent: int) -> None:
    """Let the kernel end this process when ``parent`` is gone; now, if it is."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as own_end:
        main(own_end, int(sys.argv[2]))
