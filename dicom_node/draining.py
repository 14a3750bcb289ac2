"""Whether a node is being emptied, and how far that has got: a note in its state folder.

::

    sending   it takes in nothing more, and sends what it can
    handing   what is left is being handed over: the node does not start
    handed    another has it, and has said so

Each step forward is durable before anything rests on it, so that a power cut leaves
either both nodes with what was owed, and this one stopped, or the other alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from dicom_node.durable import sync_folder, write_durably
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "drain.json"


class Phase(StrEnum):
    """How far it has got."""

    SENDING = "sending"
    HANDING = "handing"
    HANDED = "handed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """That a node is being emptied."""

    phase: Phase
    handover: str
    """What the hand-over is known by; drawn when the drain began."""
    by: str
    why: str
    since: str
    to: str = ""
    """Name of the node that gets what is left; empty until that is said."""
    stays: int = 0
    """How many instances that node did not get, as their files cannot be read."""

    def keep(self, state: Path) -> None:
        """Note it durably."""
        write_durably(state / FILE, json.dumps(asdict(self)).encode("utf-8"))

    @classmethod
    def of(cls, state: Path) -> Self | None:
        """Return what is noted; None if the node is not being emptied.

        Raises:
            ConfigError: The note cannot be read: nothing is taken in, or started.
        """
        try:
            values = json.loads((state / FILE).read_bytes())
            return cls(**values | {"phase": Phase(values["phase"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{state / FILE} cannot be read",
                hint="It says how far the node was emptied: compare with the audit.",
            ) from error


def is_draining(state: Path) -> bool:
    """Say whether a node is being emptied, whatever its note says."""
    return (state / FILE).exists()


def require_in_service(state: Path) -> None:
    """Return if a node may start: not once what it owes is on its way to another.

    Raises:
        ConfigError: It is.
    """
    drain = Drain.of(state)
    if drain is None or drain.phase is Phase.SENDING:
        return
    if drain.phase is Phase.HANDING:
        raise ConfigError(
            f"what this node owes is being handed over to {drain.to}",
            hint="miadmark drain finish, with the receipt of that node. miadmark drain "
            "cancel takes it back: only if that node has not taken it.",
        )
    but = (
        f" but for {drain.stays} instances whose files cannot be read"
        if drain.stays
        else ""
    )
    raise ConfigError(
        f"this node was emptied, and {drain.to} has what it owed{but}",
        hint="miadmark drain cancel takes it into service again.",
    )


def back_in_service(state: Path) -> None:
    """Forget that the node was being emptied."""
    (state / FILE).unlink(missing_ok=True)
    sync_folder(state)
