"""What every command says, and to whom: complaints, the time, who is asking."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


def user() -> str:
    """Return who is asking, for records that name a person."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())


def complain(message: str, hint: str) -> None:
    """Print an error, and what to do about it, to standard error."""
    print(f"miadmark: error: {message}", file=sys.stderr)
    if hint:
        print(f"miadmark: hint: {hint}", file=sys.stderr)
