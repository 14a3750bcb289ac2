"""Has marks looked for by a cluster: what the node knows of it.

A search of so many frames is cut into requests of as many as one machine searches
together, which are sealed, handed to the process that speaks to the cluster
(``cluster``), and put together again; each answer is opened, and held against what the
node itself would search with. What waits for a worker is in the memory of that process,
sealed: of each object that is asked about no more than so many frames. The other objects
are in the queue.
Nothing here imports ray.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final, Self

from dicom_node import __version__
from dicom_node.errors import ClusterError, ConfigError, UnforeseenError
from dicom_node.search_message import (
    Answer,
    Request,
    SearchSeal,
    make_search_key,
    read_search_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from dicom_node.config import Cluster
    from dicom_node.marking import Marking
    from miadmark_core.search.finder import FoundMark, Wanted

logger = logging.getLogger(__name__)

_END_S: Final = 15.0
_ANSWER_S: Final = 3600.0
"""For one answer. The other side always answers, or dies; but what was asked for before
may take longer than that where workers are lost."""
_RUN: Final = (
    "import sys; from dicom_node.cluster import serve; "
    "serve(int(sys.argv[1]), sys.argv[2])"
)


class ClusterSearch:
    """Looks for marks on a cluster, as :class:`Finder` does here.

    The process is started by the first search, and again after it has died. Close it, or
    use it in a ``with``.
    """

    def __init__(
        self,
        settings: Cluster,
        key: Path,
        weights: Path | None,
        marking: Marking,
        digest: Callable[[], str],
        away: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Keep what is needed, and make a key unless there is one.

        Args:
            settings: Where, and how many workers.
            key: Where it lies, here and on each machine of the cluster.
            weights: Of this site, if it has any, here and there.
            marking: How.
            digest: Returns what the node itself would search with
                (:attr:`~miadmark_core.search.finder.Finder.digest`).
            away: Entered while others search: here nothing is done meanwhile.

        Raises:
            ConfigError: ray is not installed, or there is no key to be used.
        """
        if find_spec("ray") is None:
            raise ConfigError(
                "searching on a cluster needs ray, which is not installed",
                hint="pip install 'miadmark[mark,cluster]'",
            )
        make_search_key(key)
        self._seal = SearchSeal(read_search_key(key))
        self._told = json.dumps(
            (
                settings.ray,
                settings.least,
                settings.most,
                settings.gpus,
                str(key.absolute()),
                str(weights.absolute()) if weights else "",
                marking.profile.value,
                marking.mode.value,
            )
        )
        self._digest, self._away = digest, away
        self._sameness = ""
        self._lock = threading.Lock()
        self._open: dict[bytes, Future[bytes]] = {}
        self._count = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def sameness(self) -> str:
        """Return, in a line, what marks found there depend on; ask if nobody has."""
        if not self._sameness:
            self._asked([()])()
        return self._sameness

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        """Return a mark for each frame, in order; see :meth:`ask`."""
        return self.ask(wanted)()

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        """Ask for a mark for each frame, and return what waits for them, in order.

        What is returned raises:

        - :class:`ClusterError`: The cluster cannot search now, or would search otherwise.
        - :class:`UnforeseenError`: Whoever searches for one of them dies of it.
        """
        from miadmark_core.search.finder import BATCH

        # Cut alike whatever workers there are: company makes marks round otherwise.
        parts = [tuple(wanted[n : n + BATCH]) for n in range(0, len(wanted), BATCH)]
        answers, count = self._asked(parts), len(wanted)

        def found() -> list[FoundMark]:
            marks = [one for answer in answers() for one in answer.marks]
            if len(marks) != count:
                raise ClusterError(
                    "the cluster has not found as many marks as it was asked"
                )
            return marks

        return found

    def close(self) -> None:
        """End the process, and wait for it."""
        # Whoever sends has the lock, and waits for a process that may not read.
        self._hang_up()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            self._hang_up()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._ended()

    def _hang_up(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _asked(self, parts: Sequence[Sequence[Wanted]]) -> Callable[[], list[Answer]]:
        """Ask for all parts at once, and return what waits for the answers."""
        expected = f"miadmark {__version__}, {self._digest()}"
        asked = []
        for part in parts:
            sealed = self._seal.request(Request(expected, tuple(part)))
            asked.append((sealed, self._send(sealed)))

        def answers() -> list[Answer]:
            with self._away():
                come = [(_come(future), sealed) for sealed, future in asked]
            opened = []
            for encoded, sealed in come:
                answer = self._seal.read_answer(encoded, sealed)
                self._require_same(answer, expected)
                opened.append(answer)
            return opened

        return answers

    def _require_same(self, answer: Answer, expected: str) -> None:
        """Return if an answer is from the search that the node would do."""
        hint = "Install the same version, library and weights on every machine."
        if answer.search != expected:
            raise ClusterError(
                f"a worker of the cluster would search with {answer.search}, and this "
                f"node with {expected}",
                hint=hint,
            )
        if self._sameness and answer.sameness != self._sameness:
            raise ClusterError(
                f"workers of the cluster would find different marks: {answer.sameness}, "
                f"and {self._sameness}",
                hint=f"{hint} Processors have to be of one kind; if all of them were "
                "replaced, start the node again.",
            )
        self._sameness = answer.sameness

    def _send(self, sealed: bytes) -> Future[bytes]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._restart()
            self._count += 1
            number = self._count.to_bytes(8)
            future = self._open[number] = Future[bytes]()
            try:
                self._connection.send_bytes(number + sealed)
            except OSError:  # it died, and who reads may have gone already
                if self._open.pop(number, None):
                    future.set_exception(_died())
            return future

    def _restart(self) -> None:
        if self._process is not None:
            logger.warning("what spoke to the cluster has died, and is started again")
            self._process.wait()
            self._ended()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 ourselves
                [sys.executable, "-c", _RUN, str(theirs.fileno()), self._told],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
            )
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._reader = threading.Thread(
            target=self._read, args=(self._connection,), daemon=True, name="cluster"
        )
        self._reader.start()

    def _ended(self) -> None:
        """Clear up after a process that has ended."""
        self._reader.join()
        self._connection.close()
        if self._socket is not None:
            self._socket.close()

    def _read(self, connection: Connection) -> None:
        """Hand answers to those who wait for them, until the process has died."""
        with suppress(EOFError, OSError):
            while True:
                message = connection.recv_bytes()
                future = self._open.pop(message[:8], None)
                if future is not None:
                    _settle(future, message[8:9], message[9:])
        for number in list(self._open):
            if future := self._open.pop(number, None):
                future.set_exception(_died())


def _died() -> ClusterError:
    return ClusterError(
        "what speaks to the Ray cluster has died",
        hint="Does the cluster run? See: ray status.",
    )


def _come(future: Future[bytes]) -> bytes:
    try:
        return future.result(_ANSWER_S)
    except TimeoutError:
        raise ClusterError(
            f"the cluster has not answered for {_ANSWER_S:.0f} s",
            hint="Are workers lost all the time? See: ray status, and the logs of Ray.",
        ) from None


def _settle(future: Future[bytes], letter: bytes, content: bytes) -> None:
    if letter == b"a":
        future.set_result(content)
    elif letter == b"d":
        future.set_exception(UnforeseenError(content.decode("utf-8", "replace")))
    else:
        says, _, hint = content.decode("utf-8", "replace").partition("\0")
        future.set_exception(ClusterError(says, hint=hint))
