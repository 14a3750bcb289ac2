"""Keys, grants and the audit: for whoever decides who may have originals."""

from __future__ import annotations

import re
from collections import deque
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from cryptography import x509

from dicom_node.addressing import is_ae_title
from dicom_node.audit import Event
from dicom_node.authorising import GrantMode, Terms
from dicom_node.errors import AuditError, NodeError
from dicom_node.grants import fingerprint
from dicom_node.web.guarded import Guarded
from dicom_node.web.rights import Right
from dicom_node.web.site import Call, to

if TYPE_CHECKING:
    from starlette.responses import Response

    from dicom_node.authorising import Grant

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_MOST_DAYS: Final = 3660
_SHOWN: Final = 200
_SEARCHED: Final = 5000
"""Entries of the audit; to check one takes about 0.1 ms."""


def keys(call: Call) -> Response:
    """Show what keys there are; nothing of them that is secret."""
    keyring = call.site.keyring
    keyring.refresh()
    return call.page(
        "keys.html",
        fingerprint=keyring.site("").fingerprint,
        ring=keyring.ring,
        root=keyring.root.version,
        has_recovery=bool(keyring.ring.public.get("recovery")),
        recipients=keyring.sites("recipients"),
        trusted=keyring.sites("trusted"),
    )


def grants(call: Call) -> Response:
    """Show every grant ever proposed."""
    with call.site.state.grants(call.site.keyring) as found:
        listed, needed = found.all(), found.approvals
    now = call.site.clock()
    return call.page(
        "grants.html",
        grants=[(g, _standing(call, g), g.terms.not_after < now) for g in listed[::-1]],
        needed=needed,
    )


def propose(call: Call) -> Response:
    """Propose a grant, for somebody else to approve."""
    terms = _terms(call)
    with call.site.state.grants(call.site.keyring) as found:
        number = found.propose(terms, by=call.session.name, now=call.site.clock())
        _note(call, "proposed", found.grant(number))
    return to(f"/grants?done={quote(f'grant {number} is proposed')}")


def approve(call: Call) -> Response:
    """Agree to a grant that somebody else has proposed."""
    number = _number(call)
    with call.site.state.grants(call.site.keyring) as found:
        _require_another(call.session.name, found.grant(number))
        grant = found.approve(number, by=call.session.name, now=call.site.clock())
        _note(call, "approved", grant)
    return to(f"/grants?done={quote(f'you agree to grant {number}')}")


def revoke(call: Call) -> Response:
    """Take a grant back."""
    number = _number(call)
    with call.site.state.grants(call.site.keyring) as found:
        grant = found.revoke(number, by=call.session.name, now=call.site.clock())
        _note(call, "revoked", grant)
    return to(f"/grants?done={quote(f'grant {number} is revoked')}")


def audit(call: Call) -> Response:
    """Show the last entries of the audit, checked; all of it is where that is asked."""
    event, text = call.asked("event"), call.asked("text")
    call.write_down(Event.READ, "read", what=f"event={event} text={text}")
    wants_all = bool(call.asked("whole"))
    shown: list[dict[str, Any]] = []
    last = oldest = 0
    broken = ""
    try:
        if wants_all:
            deque(call.site.audit.whole(), maxlen=0)
        for entry in islice(call.site.audit.newest_first(), _SEARCHED):
            oldest = entry.head.number
            last = last or oldest
            words = " ".join(map(str, entry.values.values()))
            if (not event or entry.values["event"] == event) and text in words:
                shown.append(entry.values)
            if len(shown) == _SHOWN:
                break
    except AuditError as error:
        broken = str(error)
    names = ("number", "at", "event", "by", "before")
    return call.page(
        "audit.html",
        entries=[
            (entry, {k: v for k, v in entry.items() if k not in names and v != ""})
            for entry in shown
        ],
        last=last,
        oldest=1 if wants_all else oldest,
        broken=broken,
        events=[one.value for one in Event],
        event=event,
        text=text,
    )


def _terms(call: Call) -> Terms:
    """Return what a form says of a grant.

    Raises:
        NodeError: It says what cannot be.
    """
    form, now = call.form, call.site.clock()
    titles = tuple(t.strip() for t in form.get("ae_titles", "").split(",") if t.strip())
    if not titles or not all(map(is_ae_title, titles)):
        raise NodeError(
            "that is no AE title", hint="1 to 16 characters; commas between."
        )
    days = form.get("days", "")
    if not days.isdigit() or not 1 <= int(days) <= _MOST_DAYS:
        raise NodeError(f"1 to {_MOST_DAYS} days")
    try:
        return Terms(
            mode=GrantMode.MEDIATED,
            ae_titles=titles,
            purposes=(form.get("purpose") or "treatment",),
            not_before=now,
            not_after=now + timedelta(days=int(days)),
            fingerprint=_key(form.get("certificate", "")),
        )
    except ValueError as error:
        raise NodeError(str(error)) from error


def _key(text: str) -> str:
    """Return the fingerprint that somebody has given, or that of a certificate."""
    if _FINGERPRINT.fullmatch(text.lower()):
        return text.lower()
    try:
        return fingerprint(x509.load_pem_x509_certificate(text.encode("utf-8")))
    except ValueError as error:
        raise NodeError(
            "that is neither a certificate (PEM) nor the fingerprint of a key",
            hint="64 hexadecimal digits; the log of the node names them.",
        ) from error


def _require_another(name: str, grant: Grant) -> None:
    """Return if somebody has not agreed under another name that a provider gave him.

    Raises:
        NodeError: He has: his subject stays, what he is called may be changed.
    """
    _, is_known, subject = name.partition("(")
    earlier = {by.partition("(")[2] for by in (grant.proposed_by, *grant.approved_by)}
    if is_known and subject in earlier:
        raise NodeError(
            f"you agree to grant {grant.id} already, under another name",
            hint="It takes somebody else.",
        )


def _number(call: Call) -> int:
    number = str(call.request.path_params["number"])
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise NodeError("there is no such grant")
    return int(number)


def _standing(call: Call, grant: Grant) -> str:
    if grant.revoked_by:
        return f"revoked by {grant.revoked_by}"
    if not grant.is_approved:
        return "waits for approval"
    if grant.terms.not_after < call.site.clock():
        return "has ended"
    return f"in force until {grant.terms.not_after:%Y-%m-%d}"


def _note(call: Call, did: str, grant: Grant) -> None:
    titles = ", ".join(grant.terms.ae_titles)
    call.write_down(Event.GRANT, did, grant=grant.id, ae_titles=titles)


VIEWS: Final = (
    Guarded("GET", "/keys", keys, Right.DECIDE),
    Guarded("GET", "/grants", grants, Right.DECIDE),
    Guarded("POST", "/grants/propose", propose, Right.DECIDE),
    Guarded("POST", "/grants/{number}/approve", approve, Right.DECIDE),
    Guarded("POST", "/grants/{number}/revoke", revoke, Right.DECIDE),
    Guarded("GET", "/audit", audit, Right.DECIDE),
)
