"""Every entry of the audit has a message that the schema of PS3.15 accepts."""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest
from lxml import etree

from dicom_node.audit import Event
from dicom_node.audit_message import Origin, is_alert, message
from dicom_node.chain import Entry, Head
from dicom_node.syslog import framed, line

SCHEMA = etree.RelaxNG.from_rnc_string(
    (Path(__file__).parents[2] / "vectors" / "audit-message.rnc").read_text("utf-8")
)
ORIGIN = Origin("gateway-1", "Hospital", "MIADMARK", "77")
AT = "2026-01-01T12:00:00.000+00:00"

FACTS: list[dict[str, str | int]] = [
    {},
    {"by": "alice", "did": "rule", "approvers": 2},
    {"by": "alice", "did": "revoked", "grant": 3, "ae_titles": "RESEARCH, PARTNER"},
    {"ae_title": "RESEARCH", "address": "192.0.2.1:104", "study": "1.2.3", "grant": 1},
    {"host": "192.0.2.1", "ae_title": "'\\x00<&>\"", "reason": "its title is none"},
    {
        "peer": "CT1",
        "study": "1.2.3",
        "patient": "p-00",
        "instances": 3,
        "classes": "1.2.840.10008.5.1.4.1.1.2=2 1.2.840.10008.5.1.4.1.1.7=1",
    },
    {"peer": "pacs", "route": "r", "action": "mark", "instances": 1, "classes": "=1"},
    {"reason": "Größe <zu groß> & \x00\x1b[31m", "instance": "1.2.3", "route": "ä"},
    {"chain": "00", "upto": 9, "signature": "AAAA", "signer": "00", "what": " "},
]


def entry(event: str, facts: dict[str, str | int]) -> Entry:
    values = {"number": 7, "at": AT, "event": event, "before": "00", **facts}
    return Entry(Head(7, "ab" * 32), values)


def parsed(event: str, facts: dict[str, str | int]) -> etree._Element:
    return etree.fromstring(message(entry(event, facts), ORIGIN))


@pytest.mark.parametrize("event", [*Event, "something that is not invented yet"])
@pytest.mark.parametrize("facts", FACTS, ids=range(len(FACTS)))
def test_the_schema_accepts_it(event: str, facts: dict[str, str | int]) -> None:
    root = parsed(event, facts)
    assert SCHEMA.validate(root), SCHEMA.error_log
    # PS3.15 A.5.2: exactly one asks for it.
    assert len(root.xpath("ActiveParticipant[@UserIsRequestor='true']")) == 1


def test_the_schema_is_no_rubber_stamp() -> None:
    for path, name in (
        ("EventIdentification", "EventOutcomeIndicator"),
        ("ActiveParticipant", "UserID"),
        ("AuditSourceIdentification", "AuditSourceID"),
        ("ParticipantObjectIdentification", "ParticipantObjectID"),
    ):
        root = parsed("sent", FACTS[5])
        del root.find(path).attrib[name]
        assert not SCHEMA.validate(root)


def details(root: etree._Element) -> dict[str, str]:
    return {
        str(one.get("type")): b64decode(str(one.get("value"))).decode("utf-8")
        for one in root.iter("ParticipantObjectDetail")
    }


def test_nothing_that_an_entry_says_is_lost() -> None:
    for facts in FACTS:
        for event in Event:
            said = details(parsed(event, facts))
            assert said["entry"] == "7"
            assert said["entry digest"] == "ab" * 32
            assert {n: str(v) for n, v in facts.items()}.items() <= said.items()


def test_a_transfer_names_one_study_one_patient_both_sides_and_the_classes() -> None:
    for event, roles in (
        ("received", ["110152", "110153"]),
        ("sent", ["110153", "110152"]),
    ):
        root = parsed(event, FACTS[5])
        assert root.xpath("string(//EventID/@csd-code)") == "110104"
        assert root.xpath("//RoleIDCode/@csd-code") == roles
        about = root.findall("ParticipantObjectIdentification")
        ids = [one.get("ParticipantObjectID") for one in about]
        assert ids == ["1.2.3", "p-00"]
        kinds = root.xpath("//ParticipantObjectIDTypeCode/@csd-code")
        assert kinds == ["110180", "2"]
        counted = root.xpath("//SOPClass/@NumberOfInstances")
        assert counted == ["2", "1"]


@pytest.mark.parametrize(
    ("event", "facts", "codes", "outcome"),
    [
        ("started", {}, ["110100", "110120"], "0"),
        ("stopped", {}, ["110100", "110121"], "0"),
        ("audit read", {"by": "a"}, ["110101"], "0"),
        ("rejected", {"host": "h"}, ["110113", "110126"], "4"),
        ("insecure release", {}, ["110113", "110132", "insecure"], "0"),
        ("refused", {}, ["110113", "110132", "refuse"], "8"),
        ("grant", {"did": "approved"}, ["110113", "110137", "grant"], "0"),
        ("grant", {"did": "revoked"}, ["110113", "110137", "revoke"], "0"),
        ("keys", {"did": "rotated"}, ["110113", "110129", "keys"], "0"),
        ("break-glass", {"by": "a"}, ["110113", "110127"], "4"),
        ("sent", {"action": "mark"}, ["110104", "mark"], "0"),
        ("sent", {"action": "strip"}, ["110104", "restore"], "0"),
        ("released", {"study": "1.2"}, ["restore"], "0"),
    ],
)
def test_events_have_the_codes_that_they_should(
    event: str, facts: dict[str, str | int], codes: list[str], outcome: str
) -> None:
    root = parsed(event, facts)
    found = root.xpath("//EventID/@csd-code | //EventTypeCode/@csd-code")
    assert found == codes
    assert root.xpath("string(//@EventOutcomeIndicator)") == outcome
    assert is_alert(entry(event, facts)) == (outcome != "0")


def test_a_line_of_syslog_is_as_the_standard_wants_it() -> None:
    text = message(entry("started", {}), ORIGIN)
    made = line(text, at=AT, host="gate way\n1", process="77")
    head = (
        rb"<85>1 2026-01-01T12:00:00.000\+00:00 gateway1 miadmark 77 DICOM\+RFC3881 - "
    )
    assert re.fullmatch(head + re.escape(text), made)
    assert line(text, at=AT, host="h", process="1", is_warning=True)[:4] == b"<84>"
    assert framed(b"abc") == b"3 abc"
    assert b"\n" not in text
    assert text.isascii()
