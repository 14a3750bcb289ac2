"""The processes of a node: started, and started again when they die, until it stops.

Which process may do something is decided by locks on files, which the kernel drops with
their holder: so a node that starts after one that was killed waits for what that one has
left behind.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""How often it is seen whether to stop, and whether the parent is still there."""

LEAVE: Final = signal.SIGUSR1
"""Tells a process to finish what it is at, take on nothing more, and end."""

_FINISHING_S: Final = 30.0
_YOUNG_S: Final = 10.0
"""Whoever dies within so short a time is not started again at once."""
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
"""How long it is waited then: twice as long each time that it has ended of itself."""

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


class Crew:
    """The processes of a node that are to run, one of each role, and those that leave."""

    def __init__(self, config_path: Path, stopping: threading.Event) -> None:
        """Prepare; nothing is started yet.

        Args:
            config_path: Where the configuration was read from.
            stopping: Set once the node is told to stop.
        """
        self._config_path, self._stopping = config_path, stopping
        self._roles: dict[str, tuple[Role, int]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._waits: dict[str, float] = {}
        self._again: dict[str, float] = {}
        """When one who died young is started again."""
        self._leaving: list[subprocess.Popen[bytes]] = []

    def take(self, roles: Mapping[str, Role], content: int) -> None:
        """Take on roles: a process of each is started at the next look.

        Args:
            roles: By name. One that is there is kept, for when it is started again.
            content: Descriptor of the configuration (:func:`held_for_others`).
        """
        self._roles |= {name: (role, content) for name, role in roles.items()}
        for name in roles:
            # By other rules it may live.
            self._waits.pop(name, None)
            self._again.pop(name, None)

    def look(self) -> None:
        """Start what is not running.

        What cannot be started is tried again: a machine that is out of memory or
        processes for a moment is no reason to end those that run.
        """
        self._leaving = [one for one in self._leaving if one.poll() is None]
        for name, (role, content) in list(self._roles.items()):
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None:
                logger.error(
                    "%s ended status=%d; starting another", name, process.returncode
                )
                del self._processes[name]
                self._rest(name, is_killed=process.returncode < 0)
            if time.monotonic() < self._again.get(name, 0.0):
                continue
            try:
                self._started[name] = time.monotonic()
                self._processes[name] = role.started(self._config_path, content)
            except OSError as error:
                logger.error("%s cannot be started: %s", name, error.strerror)  # noqa: TRY400
                self._stopping.wait(1)

    def _rest(self, name: str, *, is_killed: bool) -> None:
        """Have who dies young wait, ever longer: he may go on dying."""
        now = time.monotonic()
        if now - self._started[name] >= _YOUNG_S:
            self._waits.pop(name, None)
            return
        longest = _FIRST_WAIT_S if is_killed else _LONGEST_WAIT_S
        waits = self._waits.get(name, 0.0)
        self._waits[name] = min(2 * waits or _FIRST_WAIT_S, longest)
        self._again[name] = now + self._waits[name]

    def are_running(self, names: Iterable[str]) -> bool:
        """Say whether the processes of roles are there, as far as is known."""
        return all(
            name in self._processes and self._processes[name].poll() is None
            for name in names
        )

    def dismiss(self, names: Iterable[str]) -> None:
        """Let processes leave once they have finished, however long that takes."""
        for name in names:
            self._roles.pop(name, None)
            process = self._processes.pop(name, None)
            if process is not None and process.poll() is None:
                process.send_signal(LEAVE)
                self._leaving.append(process)

    @property
    def is_anybody_leaving(self) -> bool:
        """Return whether somebody who was dismissed has not finished yet."""
        return any(one.poll() is None for one in self._leaving)

    def end(self, names: Iterable[str], within_s: float) -> None:
        """End processes and return once they are gone; the others are looked after."""
        processes = []
        for name in names:
            self._roles.pop(name, None)
            if name in self._processes:
                processes.append(self._processes.pop(name))
        for process in processes:
            process.terminate()
        end = time.monotonic() + within_s
        while any(one.poll() is None for one in processes):
            if time.monotonic() > end or self._stopping.wait(LOOK_S):
                break
            self.look()
        _finish(processes)

    def finish(self) -> None:
        """Let all of them finish."""
        _finish([*self._processes.values(), *self._leaving])


def supervise(
    crew: Crew,
    stopping: threading.Event,
    also: Callable[[], None] = lambda: None,
) -> None:
    """Keep one process of each role running until ``stopping``.

    Args:
        crew: Whose.
        stopping: When to return.
        also: What else there is to do, again and again.
    """
    while not stopping.is_set():
        crew.look()
        also()
        stopping.wait(2 * LOOK_S)


def _finish(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes finish."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=_FINISHING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Heard:
    """How often processes have said that they are ready (:func:`tell`)."""

    def __init__(self) -> None:
        """Begin at none."""
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._count = 0

    @property
    def count(self) -> int:
        """Return how often until now."""
        with suppress(BlockingIOError):
            self._count += len(os.read(self._reading, 4096))
        return self._count

    def close(self) -> None:
        """Hear nothing more."""
        os.close(self._reading)
        os.close(self.writing)


def held_for_others(content: bytes) -> int:
    """Return a descriptor of a file without a name, for processes that inherit it."""
    descriptor = os.memfd_create("configuration")
    try:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def content_in(descriptor: int) -> bytes:
    """Return what :func:`held_for_others` holds."""
    # From its start: where reading has got to is one for all that have inherited it.
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    os.close(descriptor)
    return content


def tell(descriptor: int) -> None:
    """Say to whoever counts (:class:`Heard`) that it is so."""
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
