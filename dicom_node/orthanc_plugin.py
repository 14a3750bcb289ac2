"""The node in Orthanc: what arrives there, or what it has, goes to a hatch of the node.

Orthanc loads this file (``PythonScript``) with its own Python, so nothing beyond the
standard library is imported: neither torch nor keys are in its process. As *egress*
nothing is stored: an object is durable in the hatch before Orthanc answers, and an object
that cannot be handed in is answered with 0xA700. As *feed* copies are handed in and
nothing is changed.

The callbacks run in Orthanc's threads, which wait for them; none calls Orthanc back.
Requests to Orthanc come from a thread of our own. This is the only module that knows
Orthanc's Python interface; it needs version 4.0 of the plugin and no more. That plugin is
AGPL-3.0-or-later, and what runs in it has to be compatible with that; this is Apache-2.0.
"""

# ruff: noqa: E402
from __future__ import annotations

import os
import sys

# Orthanc puts this folder on the path, and with it a `queue` that is not Python's.
_here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _here]  # noqa: PTH100
sys.path.append(os.path.dirname(_here))  # noqa: PTH120

import json
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import orthanc

from dicom_node.errors import ConfigError
from dicom_node.hatch_folder import HatchFolder
from dicom_node.orthanc_feed import Feed, GoneError
from dicom_node.orthanc_settings import Role, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

_POSITION: Final = 4747
"""Number of the global property that the feed keeps (Orthanc: 1024 and more)."""
_TURN_S: Final = 1.0
_REST_S: Final = 10.0
_FINISHING_S: Final = 30.0
_LOOKING_S: Final = 10.0
"""How long what arrives waits for an egress that has just been started."""
_GONE: Final = frozenset(
    {orthanc.ErrorCode.UNKNOWN_RESOURCE, orthanc.ErrorCode.INEXISTENT_ITEM}
)


class _ToOrthanc(logging.Handler):
    """Sends what is logged to Orthanc's log."""

    def emit(self, record: logging.LogRecord) -> None:
        say = (
            orthanc.LogError if record.levelno >= logging.ERROR else orthanc.LogWarning
        )
        say(f"miadmark: {record.getMessage()}")


logger = logging.getLogger("dicom_node")
logger.addHandler(_ToOrthanc())
logger.setLevel(logging.WARNING)


class OrthancRest:
    """See :class:`dicom_node.orthanc_feed.Rest`."""

    def get(self, path: str) -> bytes:
        """Return what is at ``path``."""
        return bytes(_asked(lambda: orthanc.RestApiGet(path)))

    def put(self, path: str, content: str) -> None:
        """Write to ``path``."""
        _asked(lambda: orthanc.RestApiPut(path, content))

    def position(self) -> int | None:
        """Return what was kept."""
        found = orthanc.GetGlobalProperty(_POSITION, "")
        return int(found) if found else None

    def keep_position(self, number: int) -> None:
        """Keep a number."""
        orthanc.SetGlobalProperty(_POSITION, str(number))


def _asked(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except orthanc.OrthancException as error:
        if error.args and error.args[0] in _GONE:
            raise GoneError from None
        raise


class Egress:
    """Hands in what arrives, and keeps nothing."""

    def __init__(self, hatch: HatchFolder) -> None:
        """Keep where to; nothing is taken until :meth:`begin`."""
        self._hatch, self._has_looked = hatch, threading.Event()
        self.lack = "it has not looked yet whether this Orthanc is empty"

    def begin(self, instances: int) -> None:
        """Take in what arrives, if Orthanc holds nothing.

        Args:
            instances: How many it holds. None can be the node's work, since what arrives
                is not kept: so it is an archive, or was run without this plugin.
        """
        if instances:
            self.lack = (
                f"this Orthanc holds {instances} instances, and an egress keeps none"
            )
            logger.error(
                "%s: it stops. Give it an empty StorageDirectory and IndexDirectory; an "
                "archive has the role feed",
                self.lack,
            )
        else:
            self.lack = ""
        self._has_looked.set()

    def end(self, lack: str) -> None:
        """Take nothing in any more, and let nobody wait for it.

        Args:
            lack: Why not.
        """
        self.lack = lack
        self._has_looked.set()

    def receive(self, content: bytes, origin: int) -> tuple[int, bytes | None]:
        """Answer for an object that has arrived, once it is known whether to take it.

        Orthanc answers before it says that it has started.

        Returns:
            That Orthanc is to let it go, and say success: the hatch has it. Otherwise
            that it was changed, into nothing: Orthanc says that it lacks resources. An
            exception here would make Orthanc keep the object.
        """
        actions = orthanc.ReceivedInstanceAction
        try:
            self._has_looked.wait(_LOOKING_S)
            if not self.lack:
                self._hatch.put([content])
                return actions.DISCARD, None
            logger.error("refused an object, origin=%d: %s", origin, self.lack)
        except OSError as error:
            logger.error(  # noqa: TRY400 - the sentence says all
                "refused an object: %s cannot be written: %s",
                self._hatch.folder,
                error.strerror,
            )
        except BaseException as error:  # noqa: BLE001 - see above
            logger.error("refused an object: %s", type(error).__name__)  # noqa: TRY400
        return actions.MODIFY, b""


class Plugin:
    """What is registered with Orthanc, and the thread beside it."""

    def __init__(self, configuration: str) -> None:
        """Read the configuration.

        Raises:
            ConfigError: It says something that cannot be done: Orthanc does not start.
        """
        self._settings = read_settings(configuration)
        hatch = HatchFolder(self._settings.hatch)
        if not hatch.folder.is_dir():
            raise ConfigError(
                f"MiadMark: {hatch.folder} is no folder",
                hint="The node makes it at its start, or tmpfiles.d does.",
            )
        self._hatch, self._rest = hatch, OrthancRest()
        self._egress = Egress(hatch)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def register(self) -> None:
        """Register with Orthanc."""
        if self._settings.role is Role.EGRESS:
            orthanc.RegisterReceivedInstanceCallback(self._egress.receive)
        orthanc.RegisterOnChangeCallback(self._changed)
        orthanc.RegisterRestCallback("/miadmark", self._tell)

    def _changed(self, kind: int, _level: int, _resource: str) -> None:
        if kind == orthanc.ChangeType.ORTHANC_STARTED:
            work = self._look if self._settings.role is Role.EGRESS else self._feed
            self._thread = threading.Thread(target=work, name="miadmark", daemon=True)
            self._thread.start()
        elif kind == orthanc.ChangeType.ORTHANC_STOPPED:
            self._stopping.set()
            self._egress.end("this Orthanc stops")
            if self._thread is not None:
                self._thread.join(_FINISHING_S)

    def _look(self) -> None:
        """Begin as egress, or stop Orthanc."""
        try:
            found = json.loads(self._rest.get("/statistics"))["CountInstances"]
            self._egress.begin(found)
        except Exception as error:  # noqa: BLE001 - whatever it was, somebody waits
            self._egress.end(
                f"it cannot be seen whether this Orthanc is empty: {_words(error)}"
            )
            logger.error("%s: it stops", self._egress.lack)  # noqa: TRY400
        if self._egress.lack:
            orthanc.RestApiPost("/tools/shutdown", "")

    def _feed(self) -> None:
        """Hand in, turn by turn, until Orthanc stops."""
        feed: Feed | None = None
        rest_s = 0.0
        while not self._stopping.wait(rest_s):
            try:
                feed = feed or Feed.begun(
                    self._rest,
                    self._hatch,
                    feeds_existing=self._settings.feeds_existing,
                )
                feed.turn()
                rest_s = _TURN_S
            except Exception as error:  # noqa: BLE001 - tried again, whatever it was
                logger.error("nothing is handed in for now: %s", _words(error))  # noqa: TRY400
                rest_s = _REST_S

    def _tell(self, output: Any, _uri: str, **request: Any) -> None:
        """Answer ``GET /miadmark``: the role, and what waits for the node."""
        if request["method"] != "GET":
            output.SendMethodNotAllowed("GET")
            return
        told = {
            "Role": self._settings.role.value,
            "Hatch": str(self._hatch.folder),
            "Waiting": len(self._hatch.waiting()),
        }
        output.AnswerBuffer(json.dumps(told), "application/json")


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the hatch'}: {error.strerror}"
    return f"{type(error).__name__} {error.args}"


Plugin(orthanc.GetConfiguration()).register()
