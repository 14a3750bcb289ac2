"""The option ``--state``, and what stands behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from dicom_node.state import State


def add_state(command: argparse.ArgumentParser) -> None:
    """Add ``--state DIR``."""
    command.add_argument(
        "--state",
        type=Path,
        default=_user_state(),
        metavar="DIR",
        help="keys and ledger; made on first use (%(default)s)",
    )


def state_in(folder: Path) -> State:
    """Return the state in ``folder``; made on first use."""
    from dicom_node.state import State

    return State(folder)


def _user_state() -> Path:
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "miadmark"
