"""Start a node's process as ``python -m dicom_node`` does, with a search without cost.

The marks are drawn by chance, another one every time: so nothing rests on a search being
repeatable. With ``MIADMARK_FAULT_SEEDED`` they are drawn from the seed that the product
gives to a search, so that they tell whose key that is. Everything else is the product.
What the process starts is started like this too. (This file is run, not imported;
``shim.c`` knows the role by its name.)
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class FoundMark(NamedTuple):
    """As in ``miadmark_core.search.finder``."""

    steps: Any
    misled: dict[str, bool]
    is_logo: bool = False


class Wanted(types.SimpleNamespace):
    """Whatever is said of a frame."""


class Window(NamedTuple):
    """As in ``miadmark_core.search.views``."""

    lower: float = 0.0
    upper: float = 1.0
    share: float = 1.0


@dataclass(frozen=True)
class Effort:
    """None at all."""

    mode: object = None


class Finder:
    """Finds another mark each time, or one that follows from the seed."""

    sameness = "drawn"

    def __init__(self, *_: object, **__: object) -> None:
        """Read no weights."""

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        """Return marks by chance."""
        is_seeded = "MIADMARK_FAULT_SEEDED" in os.environ
        found = []
        for frame in wanted:
            chance = np.random.default_rng(frame.seed if is_seeded else None)
            steps = chance.integers(-60, 61, (32, 32, 1), np.int8)
            found.append(FoundMark(steps, {"one": True}))
        return found

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        """Return what draws them when it is called, as the search does."""
        return partial(self.find, wanted)


class Profiles(dict[str, Effort]):
    """One for every name."""

    def __missing__(self, _: str) -> Effort:
        """Return no effort."""
        return Effort()


def by_chance() -> None:
    """Put the search out of the way, and torch with it."""
    finder = types.ModuleType("miadmark_core.search.finder")
    vars(finder).update(
        FoundMark=FoundMark,
        Wanted=Wanted,
        Finder=Finder,
        PROFILES=Profiles(),
        best_device=lambda: None,
    )
    effort = types.ModuleType("miadmark_core.search.effort")
    vars(effort).update(Effort=Effort)
    views = types.ModuleType("miadmark_core.search.views")
    vars(views).update(Window=Window)
    sys.modules[views.__name__] = views
    sys.modules[finder.__name__] = finder
    sys.modules[effort.__name__] = effort


class Forked:
    """Stands in for a process that ``subprocess`` has started: one that was forked.

    It goes on as a fresh one would, with everything imported that it will need.
    """

    def __init__(
        self,
        command: Sequence[str],
        pass_fds: Sequence[int],
        env: object,  # noqa: ARG002
    ) -> None:
        """Fork, and run a command of ``miadmark`` in the child."""
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(command[command.index("dicom_node") + 1 :], pass_fds)
            except BaseException:  # noqa: BLE001 nothing may come back from here
                traceback.print_exc()
            os._exit(1)

    def poll(self) -> int | None:
        """Return how it ended; None while it has not."""
        return self._waited(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return how."""
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while self._waited(os.WNOHANG) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it is there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _waited(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _become(arguments: Sequence[str], keeps: Sequence[int]) -> None:
    """Be the process that a command line starts, as far as anybody can tell."""
    from dicom_node.cli import main

    told = getattr(ctypes.CDLL(None), "miadmark_fault_role", None)
    if told is not None:  # without the shim nothing fails
        told(arguments[0].encode())
    Path("/proc/self/comm").write_text(arguments[0])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    kept = {0, 1, 2, *keeps}
    for one in [*Path("/proc/self/fd").iterdir()]:
        if int(one.name) not in kept:
            with suppress(OSError):
                os.close(int(one.name))
    logging.root.handlers.clear()
    sys.argv = ["miadmark", *arguments]
    code = main()
    sys.stdout.flush()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    os._exit(int(code or 0))


def _fork_from_now_on() -> None:
    """Import what the processes of a node need, and let them be forked."""
    import dicom_node.filters.mark
    import dicom_node.filters.refer
    import dicom_node.lanes
    import dicom_node.receiver
    import dicom_node.supervising

    assert dicom_node.filters.mark
    started = subprocess.Popen

    def popen(command: Sequence[str], **more: Any) -> Any:
        is_role = "pass_fds" in more and "--content" in command
        return Forked(command, **more) if is_role else started(command, **more)

    vars(dicom_node.supervising)["subprocess"] = types.SimpleNamespace(
        Popen=popen, TimeoutExpired=subprocess.TimeoutExpired
    )


def main() -> None:
    """Run the command; what it starts with ``-m dicom_node`` comes back here."""
    launcher = Path(os.environ["MIADMARK_FAULT_LAUNCHER"])
    if not launcher.exists():
        launcher.write_text(
            f'#!/bin/sh\n[ "$2" = dicom_node ] || exec {sys.executable} "$@"\n'
            f'shift 2\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n'
        )
        launcher.chmod(0o700)
    by_chance()
    from dicom_node.cli import main

    sys.executable = str(launcher)
    if "MIADMARK_FAULT_FORKS" in os.environ and sys.argv[1] == "serve":
        _fork_from_now_on()
    sys.exit(main())


if __name__ == "__main__":
    main()
