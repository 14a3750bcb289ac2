"""Take in what was handed in through hatches: owed to its routes before it is deleted.

Whoever dies in between leaves it in the hatch. It is then taken a second time, and the
queue knows it: the same bytes are owed once.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.accepting import accept
from dicom_node.errors import ClashError, FilterError, SpoolError
from dicom_node.hatch_folder import HatchFolder
from dicom_node.incoming import IncomingFile
from dicom_node.mapped import CHUNK
from dicom_node.presence import present
from dicom_node.pseudonyms import Patients
from dicom_node.receiver import incoming_of
from dicom_node.scp import Received
from dicom_node.spool_keys import HandedKeys
from dicom_node.state import State, now
from dicom_node.stopping import Stopping
from dicom_node.supervising import LOOK_S, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dicom_node.config import Config
    from dicom_node.hatch import Hatch
    from dicom_node.spool_keys import SpoolKeys

logger = logging.getLogger(__name__)

_REST_S: Final = 5.0
"""How long a hatch rests after trouble that may pass."""
_LEFT_AFTER_S: Final = 3600.0
_MOST_FAULTS: Final = 5
_ASIDE_S: Final = 60.0
"""How long a file is let lie that can be neither taken nor put aside."""
_UNREAD_S: Final = 2.0
"""How long one that could not be read is let lie."""
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Trouble that a process has with any file."""


class _UnreadableError(Exception):
    """A file in a hatch cannot be read: its trouble, and not that of the others."""


class Taker:
    """Takes in what one hatch holds."""

    def __init__(
        self,
        hatch: Hatch,
        incoming: Path,
        accept: Callable[[Received], None],
        is_stopping: Callable[[], bool] = lambda: False,
        keys: SpoolKeys | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            hatch: Where, and by which titles it is routed.
            incoming: Folder of the spool for what is coming in.
            accept: Makes an object durable and owes it to its routes, or raises.
            is_stopping: Asked between two objects.
            keys: Seal what is coming in; without them it is not sealed.
            monotonic: Returns seconds.
        """
        self._monotonic = monotonic
        self._lying: dict[str, float] = {}
        self._keys = keys
        self._hatch, self._incoming, self._accept = hatch, incoming, accept
        self._is_stopping = is_stopping
        self._folder = HatchFolder(hatch.folder)
        self._faults: dict[str, int] = {}

    def turn(self) -> int:
        """Take in what is there; return how many objects it was.

        Raises:
            OSError: The hatch cannot be used just now; what is in it stays.
            SpoolError: The node can take in nothing just now; likewise.
        """
        files, moment = self._folder.waiting(), self._monotonic()
        names = {file.name for file in files}
        self._lying = {
            name: until
            for name, until in self._lying.items()
            if until > moment and name in names
        }
        return sum(
            self._take(file)
            for file in files
            if file.name not in self._lying and not self._is_stopping()
        )

    def sweep(self, before: float) -> None:
        """Delete what those who hand in have left half written; see the folder."""
        self._folder.sweep(before)

    def _take(self, file: Path) -> bool:
        part = IncomingFile(self._incoming, self._keys)
        try:
            # A copy: until the object is owed, the hatch is where it is kept.
            for piece in _pieces(file):
                part.write(piece)
            settled = part.begin()
            settled()
            self._accept(
                Received(
                    Path(part.name),
                    self._hatch.calling_ae_title,
                    self._hatch.called_ae_title,
                    content=part.content,
                    settled=settled,
                )
            )
        except ClashError as error:
            logger.warning("hatch %s: %s file=%s", self._hatch.name, error, file.name)
        except FilterError as error:
            self._refuse(file, str(error))
            return False
        except FileNotFoundError:
            return False  # whoever took in before this has just finished it
        except _UnreadableError as error:
            self._lying[file.name] = self._monotonic() + _UNREAD_S
            self._failed(file, f"it cannot be read: {error}")
            return False
        except (OSError, SpoolError):
            raise
        except Exception as error:  # noqa: BLE001 - tried again, whatever it was
            # Not its text, which may quote what the object holds.
            self._failed(file, type(error).__name__)
            return False
        finally:
            part.close()
            Path(part.name).unlink(missing_ok=True)
        self._faults.pop(file.name, None)
        self._put(file, lambda: self._folder.taken(file))
        return True

    def _failed(self, file: Path, how: str) -> None:
        """Try again what went wrong in a way that may pass, a few times."""
        logger.error("hatch %s: %s at file=%s", self._hatch.name, how, file.name)
        self._faults[file.name] = self._faults.get(file.name, 0) + 1
        if self._faults[file.name] >= _MOST_FAULTS:
            self._refuse(file, f"it failed {_MOST_FAULTS} times: {how}")

    def _refuse(self, file: Path, reason: str) -> None:
        self._faults.pop(file.name, None)
        logger.error(
            "hatch %s: refused file=%s: %s", self._hatch.name, file.name, reason
        )
        self._put(file, lambda: self._folder.refuse(file, reason))

    def _put(self, file: Path, where: Callable[[], None]) -> None:
        """Have a file leave the hatch; let it lie for a while if it does not."""
        try:
            where()
        except OSError as error:
            self._lying[file.name] = self._monotonic() + _ASIDE_S
            logger.error(  # noqa: TRY400 - the sentence says all
                "hatch %s: file=%s cannot be moved or deleted: %s",
                *(self._hatch.name, file.name, error.strerror),
            )


def _pieces(file: Path) -> Iterator[bytes]:
    """Yield what a file holds.

    Raises:
        FileNotFoundError: It is gone.
        OSError: No file can be read now.
        _UnreadableError: This one cannot.
    """
    try:
        with file.open("rb") as stream:
            while piece := stream.read(CHUNK):
                yield piece
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _OURS:
            raise
        raise _UnreadableError(error.strerror) from error


def take_in(config: Config, parent: int, keys: int, pseudonyms: bytes) -> None:
    """Take in until told to stop, or until the node, ``parent``, is gone.

    Args:
        config: What to do.
        parent: Process number of the node.
        keys: Descriptor of the keys of the spool.
        pseudonyms: Key of the names that the audit gives to patients.
    """
    stopping = Stopping()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells us
    state = State(config.node.state)
    with ExitStack() as stack:
        while (held := locked(state.folder / "receivers.lock", is_shared=True)) is None:
            if stopping.wait(LOOK_S) or os.getppid() != parent:
                return
        stack.enter_context(held)
        sealed_with, encrypts = HandedKeys(keys), config.storage.encrypt
        spool = state.spool(sealed_with, encrypts=encrypts)
        queue = state.queue(config.passed)
        stack.callback(queue.close)
        incoming = spool.incoming / incoming_of(state, "hatch")
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        take = partial(
            accept,
            config=config,
            spool=spool,
            queue=queue,
            lock=threading.Lock(),
            room=state.room(config.storage),
            clock=now,
            patients=Patients(pseudonyms, config.audit.patients),
            bells=state.bells,
        )
        takers = [
            Taker(
                hatch,
                incoming,
                take,
                stopping.is_set,
                sealed_with if encrypts else None,
            )
            for hatch in config.hatches
        ]
        stack.enter_context(present(state.folder, "hatch"))
        resting: dict[Taker, float] = {}
        swept = -_LEFT_AFTER_S
        while not stopping.wait(LOOK_S) and os.getppid() == parent:
            moment = time.monotonic()
            for taker in takers:
                if resting.get(taker, moment) <= moment:
                    resting[taker] = moment + _turn(taker)
            if moment - swept > _LEFT_AFTER_S:
                swept = moment
                for taker in takers:
                    taker.sweep(time.time() - _LEFT_AFTER_S)


def _turn(taker: Taker) -> float:
    """Let ``taker`` take in what there is; return how many seconds it rests then."""
    try:
        taker.turn()
    except (OSError, SpoolError) as error:
        logger.error("a hatch rests: %s", error)  # noqa: TRY400 - the sentence says all
        return _REST_S
    return 0.0
