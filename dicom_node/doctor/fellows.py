"""What the nodes of a site have in common: whether this one hears of what is new."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from dicom_node.charter_source import Known
from dicom_node.doctor.finding import note, ok, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dicom_node.chartered import Following
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding


def charter(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of the site's charter, if it has one."""
    if case.config is None or case.config.charter is None or not case.has_state:
        return
    yield judged_charter(Known.of(case.folder), case.config.charter, case.now)


def judged_charter(known: Known | None, following: Following, now: datetime) -> Finding:
    """Return whether a node goes by what its site has agreed on.

    Args:
        known: What it knows; None if it has never had a charter.
        following: Where it looks for one.
        now: Aware.
    """
    leads = following.publish is not None
    if known is None:
        return note(
            "no charter was issued yet" if leads else "no charter was taken yet",
            "The node does that once it runs: miadmark nodes says who belongs to it.",
        )
    (says,) = known.lines(now)
    if now - known.reached > 2 * timedelta(hours=following.again_h):
        return wrong(
            f"{says}: keys, grants and rules may be others by now",
            "Until the source is there again, what is revoked is not known here.",
        )
    return note(says) if known.reason else ok(says)
