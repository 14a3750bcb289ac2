"""What every command says, and to whom: complaints, the time, who is asking."""

from __future__ import annotations

import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


def user() -> str:
    """Return who is asking, for records that name a person.

    The account that somebody logged in with stays the same through ``sudo`` where the
    kernel keeps it (audit_setuid); elsewhere sudo's word is taken.
    """
    try:
        login = int(Path("/proc/self/loginuid").read_text("ascii"))
        if login != _UNSET:
            return pwd.getpwuid(login).pw_name
    except (OSError, ValueError, KeyError):
        pass
    account = os.environ.get("SUDO_USER")
    if account:
        return account
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


_UNSET: Final = (1 << 32) - 1


def about(path: Path, error: Exception) -> tuple[str, str]:
    """Return what to complain of a file, and what to do about it."""
    if isinstance(error, OSError):
        # Not its number, nor the path again.
        return f"{path}: {error.strerror or error}", ""
    return f"{path}: {error}", getattr(error, "hint", "")


def complain(message: str, hint: str) -> None:
    """Print an error, and what to do about it, to standard error."""
    print(f"miadmark: error: {message}", file=sys.stderr)
    if hint:
        print(f"miadmark: hint: {hint}", file=sys.stderr)
