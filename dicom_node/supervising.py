"""The processes of a node: started, and started again when they die, until it stops.

Which process may do something is decided by locks on files, which the kernel drops with
their holder: so a node that starts after one that was killed waits for what that one has
left behind.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""How often it is seen whether to stop, and whether the parent is still there."""

_FINISHING_S: Final = 30.0

_ENVIRONMENT: Final = {"OMP_WAIT_POLICY": "PASSIVE"}
"""A thread that waits for the others of a search is not to keep a processor busy that
somebody else has work for: on two shared ones, marking took five times as long."""


class Role:
    """What one process of a node is started with."""

    def __init__(
        self, command: str, *arguments: str, keeps: Sequence[int] = ()
    ) -> None:
        """Keep it.

        Args:
            command: Of ``miadmark``.
            *arguments: Beside the configuration and the parent.
            keeps: Descriptors that it inherits.
        """
        self.command, self.arguments, self.keeps = command, arguments, tuple(keeps)

    def started(self, config_path: Path, content: int) -> subprocess.Popen[bytes]:
        """Start the process.

        Args:
            config_path: Where the configuration was read from.
            content: Descriptor of what was read (:func:`held_for_others`).

        Raises:
            OSError: No process can be started now.
        """
        command = [sys.executable, "-m", "dicom_node", self.command]
        command += ["--config", str(config_path), "--parent", str(os.getpid())]
        command += ["--content", str(content)]
        return subprocess.Popen(  # noqa: S603
            [*command, *self.arguments],
            pass_fds=[*self.keeps, content],
            env={**_ENVIRONMENT, **os.environ},
        )


def supervise(
    roles: Mapping[str, Role],
    config_path: Path,
    content: int,
    stopping: threading.Event,
) -> None:
    """Keep one process of each role running until ``stopping``; let them finish.

    What cannot be started is tried again: a machine that is out of memory or processes
    for a moment is no reason to end those that run.
    """
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while not stopping.is_set():
            for name, role in roles.items():
                process = processes.get(name)
                if process is not None and process.poll() is None:
                    continue
                if process is not None:
                    logger.error(
                        "%s ended status=%d; starting another", name, process.returncode
                    )
                    del processes[name]
                    stopping.wait(1)
                try:
                    processes[name] = role.started(config_path, content)
                except OSError as error:
                    logger.error("%s cannot be started: %s", name, error.strerror)  # noqa: TRY400
                    stopping.wait(1)
            stopping.wait(2 * LOOK_S)
    finally:
        _finish(processes.values())


def _finish(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Let processes finish."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=_FINISHING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def held_for_others(content: bytes) -> Iterator[int]:
    """Yield a descriptor of a file without a name, for processes that inherit it."""
    descriptor = os.memfd_create("configuration")
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
        yield descriptor
    finally:
        os.close(descriptor)


def content_in(descriptor: int) -> bytes:
    """Return what :func:`held_for_others` holds."""
    # From its start: where reading has got to is one for all that have inherited it.
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return content


@contextmanager
def told(ready: Callable[[], None]) -> Iterator[int]:
    """Call ``ready`` when somebody writes to the descriptor that this yields."""
    reading, writing = os.pipe()
    over = threading.Event()

    def wait() -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while not over.is_set():
            if poll.poll(LOOK_S * 1000):
                ready()
                return

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    try:
        yield writing
    finally:
        over.set()
        waiting.join()
        os.close(reading)
        os.close(writing)


def tell(descriptor: int) -> None:
    """Say to whoever waits in :func:`told` that it is so."""
    try:
        os.write(descriptor, b"\n")
    except OSError:
        logger.debug("nobody waits for it any more")


def locked(path: Path, *, is_shared: bool = False) -> IO[bytes] | None:
    """Return an open file that nobody else has locked; None if somebody has.

    Args:
        path: Made if it is not there.
        is_shared: Whether others may have it in the same way.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stream = path.open("ab")
    try:
        how = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


@contextmanager
def all_locked(paths: Sequence[Path], stopping: threading.Event) -> Iterator[bool]:
    """Hold several locks, waiting for whoever has them; false if told to stop first."""
    with ExitStack() as stack:
        for path in paths:
            while (held := locked(path)) is None:
                if stopping.wait(LOOK_S):
                    yield False
                    return
            stack.enter_context(held)
        yield True
