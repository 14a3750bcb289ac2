"""The clock: held against what was written down, the kernel's word, and other machines.

No time server is asked. A clock that went back lets certificates and grants begin anew
and makes the audit go backwards; one that is ahead ends them. What others say of the time
comes with answers of HTTPS, whose certificates were checked (RFC 9110, 6.6.1, Date).
"""

from __future__ import annotations

import ctypes
import http.client
import os
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dicom_node.destination import Kind
from dicom_node.doctor.finding import note, ok, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dicom_node.config import Config, RemoteDesk
    from dicom_node.destination import Destination
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

WRITTEN: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This version was not there before."""
_AHEAD: Final = timedelta(minutes=2)
_APART: Final = timedelta(minutes=1)
_TIMEOUT_S: Final = 5.0
_UNSYNCHRONISED: Final = 5
"""What ``adjtimex`` returns then (adjtimex(2), TIME_ERROR)."""


def clock(case: Case) -> Iterator[Finding]:
    """Yield whether the time can be believed."""
    newest = _newest(case.folder) if case.has_state else None
    said = dates_of(case.config) if case.config is not None else {}
    # The clock when the answers came, and no earlier.
    yield from judged(
        max(case.now, datetime.now(UTC)) if said else case.now, newest, said
    )
    if not _is_synchronised():
        yield note(
            "the kernel says that nothing keeps its clock right",
            "timedatectl set-ntp true, or chrony; in a container: on its host.",
        )


def judged(
    now: datetime, newest: datetime | None, said: Mapping[str, datetime]
) -> Iterator[Finding]:
    """Yield whether a time can be right.

    Args:
        now: Which, aware.
        newest: When the newest file of the state was written.
        said: What others say that it is, by their names.
    """
    is_fine = True
    if now < WRITTEN:
        is_fine = False
        yield wrong(
            f"it is {now:%Y-%m-%d %H:%M} UTC by the clock: this version is younger",
            "Set the clock, before anything is received.",
        )
    if newest is not None and newest > now + _AHEAD:
        is_fine = False
        yield wrong(
            f"it is {now:%Y-%m-%d %H:%M} UTC by the clock, and a file of the state was "
            f"written at {newest:%Y-%m-%d %H:%M}: it is slow, or was fast",
            "Compare it with another clock; grants and certificates go by it.",
        )
    for name, there in said.items():
        apart = now - there
        if abs(apart) > _APART:
            is_fine = False
            ahead = "ahead of" if apart > timedelta(0) else "behind"
            yield wrong(
                f"the clock is {abs(apart).total_seconds():.0f} s {ahead} that of {name}",
                "One of the two is wrong: compare both with a third.",
            )
    if is_fine:
        others = f", as for {', '.join(said)}" if said else ""
        yield ok(f"it is {now:%Y-%m-%d %H:%M} UTC{others}")


def dates_of(config: Config) -> dict[str, datetime]:
    """Return what HTTPS servers of a configuration say that the time is.

    Those that do not answer, or do not say, are left out: who asks for them is told.
    """
    asked: list[tuple[str, str, Destination | RemoteDesk]] = [
        (one.name, one.url, one)
        for one in config.destinations
        if one.kind is Kind.STOW and one.has_tls
    ]
    asked += [(one.address, one.address, one) for one in config.desks]
    found = {}
    for name, url, side in asked:
        there = _date_at(url, side)
        if there is not None:
            found[name] = there
    return found


def _date_at(url: str, side: Destination | RemoteDesk) -> datetime | None:
    parts = urlsplit(url)
    try:
        context = ssl.create_default_context(cafile=side.ca)
        if side.certificate is not None:
            context.load_cert_chain(side.certificate, side.key, lambda: b"")
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context
        )
        try:
            connection.request("HEAD", "/")
            with connection.getresponse() as answer:
                return parsedate_to_datetime(answer.getheader("Date") or "")
        finally:
            connection.close()
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return None


def _newest(folder: Path) -> datetime | None:
    times = []
    for one in folder.iterdir():
        try:
            times.append(one.stat().st_mtime)
        except FileNotFoundError:
            continue  # a file of a database that was just closed
    return datetime.fromtimestamp(max(times), UTC) if times else None


def _is_synchronised() -> bool:
    """Say whether the kernel knows of nobody who keeps its clock; yes, if it is silent.

    Only asked, so that it takes no privilege (adjtimex(2), ``modes`` 0).
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        asked = (ctypes.c_long * 64)()  # larger than struct timex, and all zero
        return int(library.adjtimex(ctypes.byref(asked))) != _UNSYNCHRONISED
    except (OSError, AttributeError):
        return os.name == "posix"
