"""The audit messages of DICOM: what an entry of the audit says, as XML.

An entry goes in, bytes come out. Events that the standard has no code for have one of
this product's own (``99MIADMARK``), and so has an event that is younger than this page.
Whatever else an entry says is in the details of the object, so that nothing is lost.

Source:
    PS3.15 A.5 (messages), PS3.16 D (codes of the context group 400 to 405).
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from xml.etree import ElementTree as ET

from dicom_node.audit import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dicom_node.chain import Entry


class Code(NamedTuple):
    """A coded value."""

    value: str
    meaning: str
    scheme: str = "DCM"


def _own(value: str, meaning: str) -> Code:
    return Code(value, meaning, "99MIADMARK")


_ACTIVITY: Final = Code("110100", "Application Activity")
_LOG_USED: Final = Code("110101", "Audit Log Used")
_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
_ALERT: Final = Code("110113", "Security Alert")
_SECURITY_CONFIGURATION: Final = Code("110129", "Security Configuration")
_RESTRICTED: Final = Code("110132", "Use of Restricted Function")

_APPLICATION: Final = Code("110150", "Application")
_LAUNCHER: Final = Code("110151", "Application Launcher")
_DESTINATION: Final = Code("110152", "Destination Role ID")
_SOURCE: Final = Code("110153", "Source Role ID")

_STUDY: Final = Code("110180", "Study Instance UID")
_NODE: Final = Code("110182", "Node ID")
_PATIENT: Final = Code("2", "Patient Number", "RFC-3881")
_URI: Final = Code("12", "URI", "RFC-3881")


class Meaning(NamedTuple):
    """What a message says that an event is."""

    event: Code
    action: str
    outcome: str
    types: tuple[Code, ...] = ()


_DONE, _MINOR, _SERIOUS = "0", "4", "8"

MEANINGS: Final[Mapping[Event, Meaning]] = {
    Event.STARTED: Meaning(
        _ACTIVITY, "E", _DONE, (Code("110120", "Application Start"),)
    ),
    Event.STOPPED: Meaning(
        _ACTIVITY, "E", _DONE, (Code("110121", "Application Stop"),)
    ),
    Event.READ: Meaning(_LOG_USED, "R", _DONE),
    Event.RECEIVED: Meaning(_TRANSFERRED, "C", _DONE),
    Event.SENT: Meaning(_TRANSFERRED, "C", _DONE),
    Event.REJECTED: Meaning(
        _ALERT, "E", _MINOR, (Code("110126", "Node Authentication"),)
    ),
    Event.INSECURE: Meaning(
        _ALERT, "E", _DONE, (_RESTRICTED, _own("insecure", "Release without TLS"))
    ),
    Event.REFUSED: Meaning(
        _ALERT, "E", _SERIOUS, (_RESTRICTED, _own("refuse", "Original Refused"))
    ),
    Event.DAMAGED: Meaning(
        _ALERT, "E", _MINOR, (_own("damaged", "Kept Codestream Damaged"),)
    ),
    Event.GRANT: Meaning(
        _ALERT, "E", _DONE, (Code("110137", "User Security Attributes Changed"),)
    ),
    Event.KEYS: Meaning(
        _ALERT, "E", _DONE, (_SECURITY_CONFIGURATION, _own("keys", "Keys Changed"))
    ),
    Event.CONFIGURED: Meaning(
        _ALERT, "E", _DONE, (_SECURITY_CONFIGURATION, _own("policy", "Policy Changed"))
    ),
    Event.ROUTE: Meaning(
        _ALERT, "E", _DONE, (_SECURITY_CONFIGURATION, _own("policy", "Policy Changed"))
    ),
    Event.BROKEN_GLASS: Meaning(
        _ALERT, "E", _MINOR, (Code("110127", "Emergency Override Started"),)
    ),
    Event.SHREDDED: Meaning(_own("shred", "Object Key Destroyed"), "D", _DONE),
    Event.RELEASED: Meaning(_own("restore", "Original Released"), "R", _DONE),
    Event.RENAMED: Meaning(_own("renamed", "Original Restored Renamed"), "R", _DONE),
    Event.RECOVERED: Meaning(_own("recover", "Recovery Key Used"), "R", _DONE),
    Event.PASSED: Meaning(_own("pass", "Object Passed Unmarked"), "E", _DONE),
    Event.DROPPED: Meaning(_own("drop", "Object Dropped"), "D", _DONE),
    Event.CHECKPOINT: Meaning(_own("checkpoint", "Audit Checkpoint"), "C", _DONE),
}
"""What each event is."""

_ACTIONS: Final[Mapping[str, Code]] = {
    "mark": _own("mark", "Marked"),
    "strip": _own("restore", "Original Restored"),
    "pass": _own("pass", "Passed As It Came"),
    "break-glass": _own("break-glass", "Left As It Came By Order"),
}
_GRANTS: Final[Mapping[str, Code]] = {
    "revoked": _own("revoke", "Grant Revoked"),
    "rule": _own("policy", "Policy Changed"),
}
_IN_THE_OPEN: Final = frozenset({"number", "at", "event", "before"})
_NOT_SAID: Final = "not disclosed"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who reports."""

    source: str
    """How this node is called: AuditSourceID, and the UserID of the process."""
    site: str
    ae_title: str
    process: str
    """Its number, as the operating system has it."""


def is_alert(entry: Entry) -> bool:
    """Say whether an entry is about security going wrong."""
    return _meaning(entry.values).outcome != _DONE


def message(entry: Entry, origin: Origin) -> bytes:
    """Return the message of an entry: XML without a head, ASCII, one line."""
    values = entry.values
    meaning = _meaning(values)
    root = ET.Element("AuditMessage")
    said = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=meaning.action,
        EventDateTime=str(values["at"]),
        EventOutcomeIndicator=meaning.outcome,
    )
    _code(said, "EventID", meaning.event)
    for kind in meaning.types:
        _code(said, "EventTypeCode", kind)
    if values.get("reason"):
        ET.SubElement(said, "EventOutcomeDescription").text = _text(values["reason"])
    _participants(root, values, origin)
    source = ET.SubElement(
        root, "AuditSourceIdentification", AuditSourceID=_token(origin.source)
    )
    if origin.site:
        source.set("AuditEnterpriseSiteID", _token(origin.site))
    ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    _objects(root, entry)
    encoded: bytes = ET.tostring(root, encoding="us-ascii", xml_declaration=False)
    return encoded


def _meaning(values: Mapping[str, Any]) -> Meaning:
    name = str(values.get("event"))
    if name not in set(Event):
        return Meaning(_own("other", _token(name)), "E", _DONE)
    event = Event(name)
    meaning = MEANINGS.get(event) or Meaning(_own(name, name.capitalize()), "E", _DONE)
    more: Code | None = None
    if event is Event.SENT:
        more = _ACTIONS.get(str(values.get("action")))
    elif event is Event.GRANT:
        more = _GRANTS.get(str(values.get("did")), _own("grant", "Grant Given"))
    elif event is Event.CONFIGURED and values.get("did") == "refused":
        meaning = meaning._replace(outcome=_SERIOUS)
    return meaning._replace(types=(*meaning.types, more)) if more else meaning


def _participants(root: ET.Element, values: Mapping[str, Any], origin: Origin) -> None:
    """Say who took part: this node, the peer, the person who decided."""
    event, peer = values.get("event"), str(values.get("peer", ""))
    by = str(values.get("by", ""))
    other = peer or str(values.get("ae_title", "") or values.get("ae_titles", ""))
    address = str(values.get("address", "") or values.get("host", ""))
    # Exactly one asks for what happens: whoever decided, or sent, or else the node.
    is_senders = event == Event.RECEIVED and bool(other or address) and not by
    own_role = {Event.SENT: _SOURCE, Event.RECEIVED: _DESTINATION}.get(
        event,  # type: ignore[arg-type]
        _APPLICATION,
    )
    node = _participant(root, origin.source, asks=not by and not is_senders)
    node.set("AlternativeUserID", f"AETITLES={_token(origin.ae_title)}")
    _code(node, "RoleIDCode", own_role)
    if other or address:
        one = _participant(root, other or address, asks=is_senders)
        _code(one, "RoleIDCode", _SOURCE if event == Event.RECEIVED else _DESTINATION)
        if address:
            _set_address(one, address)
    if by:
        person = _participant(root, by, asks=True)
        if event in {Event.STARTED, Event.STOPPED}:
            _code(person, "RoleIDCode", _LAUNCHER)


def _set_address(participant: ET.Element, address: str) -> None:
    """Say where on the network somebody is: ``host``, or ``host:port``."""
    host = address.rpartition(":")[0] if address.count(":") == 1 else address
    is_number = host[:1].isdecimal() or ":" in host
    participant.set("NetworkAccessPointID", _token(host))
    participant.set("NetworkAccessPointTypeCode", "2" if is_number else "1")


def _participant(root: ET.Element, user: str, *, asks: bool) -> ET.Element:
    return ET.SubElement(
        root,
        "ActiveParticipant",
        UserID=_text(user),
        UserIsRequestor="true" if asks else "false",
    )


def _objects(root: ET.Element, entry: Entry) -> None:
    """Say what it was about: the entry itself, its study, its patient."""
    values = entry.values
    event, study = values.get("event"), str(values.get("study", ""))
    if event == Event.READ:
        log = _object(root, "audit.jsonl", _URI, "Security Audit Log", "2", "13")
        _details(log, entry)
        return
    is_transfer = event in {Event.RECEIVED, Event.SENT}
    if is_transfer or study:
        # PS3.15 wants a study and a patient of each transfer, also of one that says none.
        about = _object(root, study or _NOT_SAID, _STUDY, _NOT_SAID, "2", "3")
        _details(about, entry)
        if is_transfer:
            _describe(about, str(values.get("classes", "")))
            patient = str(values.get("patient", "")) or _NOT_SAID
            _object(root, patient, _PATIENT, _NOT_SAID, "1", "1")
        return
    about = _object(root, _subject(values), _NODE, _subject(values), "2", "13")
    _details(about, entry)


def _subject(values: Mapping[str, Any]) -> str:
    for name in ("instance", "record", "host", "digest", "chain", "grant", "event"):
        if values.get(name):
            return str(values[name])
    return _NOT_SAID


def _object(
    root: ET.Element, number: str, kind: Code, name: str, is_a: str, role: str
) -> ET.Element:
    made = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_token(number),
        ParticipantObjectTypeCode=is_a,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(made, "ParticipantObjectIDTypeCode", kind)
    ET.SubElement(made, "ParticipantObjectName").text = _token(name)
    return made


def _details(about: ET.Element, entry: Entry) -> None:
    """Say everything that the entry says, and which entry it is."""
    facts = {n: v for n, v in entry.values.items() if n not in _IN_THE_OPEN}
    if entry.values.get("event") in {Event.REJECTED, Event.INSECURE, Event.REFUSED}:
        facts = {
            "Alert Description": facts.get("reason", entry.values["event"])
        } | facts
    facts |= {"entry": entry.head.number, "entry digest": entry.head.digest}
    for name, value in facts.items():
        encoded = b64encode(str(value).encode("utf-8")).decode("ascii")
        ET.SubElement(
            about, "ParticipantObjectDetail", type=_token(name), value=encoded
        )


def _describe(about: ET.Element, classes: str) -> None:
    described = ET.SubElement(about, "ParticipantObjectDescription")
    for one in classes.split():
        uid, _, count = one.rpartition("=")
        of_class = ET.SubElement(described, "SOPClass", NumberOfInstances=count)
        if uid:
            of_class.set("UID", _token(uid))


def _code(parent: ET.Element, name: str, code: Code) -> None:
    ET.SubElement(
        parent,
        name,
        {
            "csd-code": code.value,
            "codeSystemName": code.scheme,
            "originalText": code.meaning,
        },
    )


def _text(value: object) -> str:
    """Return a text that XML can hold."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _token(value: object) -> str:
    return " ".join(_text(value).split()) or _NOT_SAID
