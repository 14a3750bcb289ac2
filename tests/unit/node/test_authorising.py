"""Who may have an original: every combination, against a table that was written apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from dicom_node.authorising import (
    Grant,
    GrantMode,
    Release,
    Request,
    Terms,
    Verdict,
    explain,
    granting,
)
from tests.conftest import NOW

DAY = timedelta(days=1)
OURS, TENANTS = b"ours", (b"ours", b"another", b"a third", b"")
RIGHT, OTHER = "aa" * 32, "bb" * 32
TITLES = ("ARCHIVE", "BACKUP", "archive", "ARCHIVE ", "STRANGER", "")
STATES = ("active", "pending", "revoked", "ended", "not begun")
CERTIFICATES = ("right", "other", "none", "none, insecure route")
KINDS = ("mediated", "mediated without site file", "direct", "address")

Cell = tuple[bytes, str, str, str, Release, str]


def a_grant(state: str, kind: str) -> Grant:
    terms = Terms(
        mode=GrantMode.DIRECT if kind == "direct" else GrantMode.MEDIATED,
        ae_titles=("ARCHIVE", "BACKUP"),
        purposes=("treatment", "research"),
        not_before=NOW + DAY if state == "not begun" else NOW - 2 * DAY,
        not_after=NOW - DAY if state == "ended" else NOW + 2 * DAY,
        fingerprint="" if kind == "address" else RIGHT,
        address="h:1" if kind == "address" else "",
        recipient="" if "without" in kind or kind == "address" else "keys",
        sop_classes=("1.2",),
        studies=("3.4",),
    )
    return Grant(
        id=1,
        terms=terms,
        proposed_by="one",
        approved_by=() if state == "pending" else ("another",),
        approvals_needed=2,
        revoked_by="one" if state == "revoked" else "",
    )


def a_request(tenant: bytes, title: str, shown: str, release: Release) -> Request:
    return Request(
        release=release,
        tenant=tenant,
        own_tenant=OURS,
        ae_title=title,
        fingerprint={"right": RIGHT, "other": OTHER}.get(shown, ""),
        address="h:1",
        is_insecure_route=shown.endswith("insecure route"),
        purpose="treatment",
        sop_class_uid="1.2",
        study_instance_uid="3.4",
    )


ALLOWED: dict[tuple[str, Release], set[str]] = {
    # kind of grant, way of release: which certificates will do
    ("mediated", Release.SENT): {"right"},
    ("mediated", Release.DESK): {"right"},
    ("mediated without site file", Release.SENT): {"right"},
    ("direct", Release.DIRECT): {"right", "none", "none, insecure route"},
    ("address", Release.SENT): {"none, insecure route"},
}


def is_allowed(cell: Cell) -> bool:
    """Say what the table says: it knows nothing of how the code decides."""
    tenant, title, state, shown, release, kind = cell
    if state != "active" or title not in {"ARCHIVE", "BACKUP"}:
        return False
    if release is Release.DESK and tenant != OURS:
        return False
    return shown in ALLOWED.get((kind, release), set())


def test_every_cell_is_as_the_table_says() -> None:
    cells = list(product(TENANTS, TITLES, STATES, CERTIFICATES, Release, KINDS))
    assert len(cells) == 5760
    allowed = 0
    for cell in cells:
        tenant, title, state, shown, release, kind = cell
        grant = a_grant(state, kind)
        request = a_request(tenant, title, shown, release)
        assert (granting([grant], request, NOW) is grant) is is_allowed(cell), cell
        allowed += is_allowed(cell)
    assert allowed == 50


BASE = a_request(OURS, "ARCHIVE", "right", Release.DESK)


@pytest.mark.parametrize(
    ("grant", "request_", "verdict"),
    [
        (a_grant("active", "mediated"), BASE, Verdict.YES),
        (a_grant("pending", "mediated"), BASE, Verdict.NOT_APPROVED),
        (a_grant("revoked", "mediated"), BASE, Verdict.REVOKED),
        (a_grant("ended", "mediated"), BASE, Verdict.NO_LONGER),
        (a_grant("not begun", "mediated"), BASE, Verdict.NOT_YET),
        (a_grant("active", "direct"), BASE, Verdict.OTHER_MODE),
        (
            a_grant("active", "mediated without site file"),
            BASE,
            Verdict.NO_SITE_FILE,
        ),
        *(
            (a_grant("active", "mediated"), replace(BASE, **changed), verdict)
            for changed, verdict in (
                ({"tenant": b"another"}, Verdict.OTHER_TENANT),
                ({"ae_title": "STRANGER"}, Verdict.OTHER_TITLE),
                ({"fingerprint": OTHER}, Verdict.OTHER_KEY),
                ({"fingerprint": ""}, Verdict.NO_KEY),
                ({"purpose": "curiosity"}, Verdict.OTHER_PURPOSE),
                ({"sop_class_uid": "1.2.3"}, Verdict.OTHER_CLASS),
                ({"study_instance_uid": ""}, Verdict.OTHER_STUDY),
            )
        ),
        *(
            (
                a_grant("active", "address"),
                replace(
                    a_request(OURS, "ARCHIVE", "none, insecure route", Release.SENT),
                    **changed,
                ),
                verdict,
            )
            for changed, verdict in (
                ({}, Verdict.YES),
                ({"address": "h:2"}, Verdict.OTHER_ADDRESS),
                ({"is_insecure_route": False}, Verdict.NOT_INSECURE),
                ({"fingerprint": RIGHT}, Verdict.OTHER_KEY),
            )
        ),
    ],
)
def test_the_one_condition_that_fails_is_named(
    grant: Grant, request_: Request, verdict: Verdict
) -> None:
    ((_, told),) = explain([grant], request_, NOW)
    assert told is verdict


def test_an_empty_list_is_all_of_them() -> None:
    grant = a_grant("active", "mediated")
    wide = replace(grant, terms=replace(grant.terms, sop_classes=(), studies=()))
    request = replace(BASE, sop_class_uid="9", study_instance_uid="9")
    assert granting([grant], request, NOW) is None
    assert granting([wide], request, NOW) is wide


def test_one_grant_that_allows_is_enough() -> None:
    others = [a_grant(state, "mediated") for state in STATES[1:]]
    grant = a_grant("active", "mediated")
    assert granting([*others, grant], BASE, NOW) is grant
    assert granting(others, BASE, NOW) is None
