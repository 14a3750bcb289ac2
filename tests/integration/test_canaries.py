"""What is written in a data set stays there: a thousand canaries, and not one sings.

Every text of every object is a canary. It is received, routed, marked by hand, passed,
dropped, held, quarantined, refused by its receiver, torn and damaged; then everything
that a node says to anybody but the receiver is searched.
"""

from __future__ import annotations

import io
import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pynetdicom import AE, evt

from dicom_node import audit_message, log, telling
from dicom_node.accepting import accept
from dicom_node.audit import Audit
from dicom_node.chain import Entry, Head
from dicom_node.config import Config, Listener, Retry
from dicom_node.destination import Destination
from dicom_node.filters.mark import MarkedInstance
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.lookout import Lookout
from dicom_node.notices import Told, news
from dicom_node.pseudonyms import Patients
from dicom_node.queue.job import JobState
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.room import Room
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.scp import SUCCESS, Received, _status_of
from dicom_node.spool import Spool
from dicom_node.status import status_of
from dicom_node.transfers import Transfers
from tests.conftest import NOW
from tests.delivery import senders_of
from tests.hand_marks import marked_by_hand
from tests.workers import worker_of

RUNS = 1000
CANARY = "CANARY"
TEXTS = ("AE", "AS", "CS", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
"""Kinds of elements that hold a text; dates and times hold one that they should not."""
KEPT = {"Modality", "PhotometricInterpretation", "SpecificCharacterSet", "ImageType"}
"""What says how an object is to be read."""
CT = uid.CTImageStorage
REPORT = uid.BasicTextSRStorage

_UID = f"2.25.{10**36}"

_WORDS: list[tuple[int, str, str]] = sorted(
    (tag, kind, keyword)
    for tag, (kind, many, _, retired, keyword) in DicomDictionary.items()
    if kind in {*TEXTS, "DA", "TM"}
    and not retired
    and keyword not in KEPT
    and tag >> 16 in {0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040}
    and many == "1"
)


class Thousand:
    """Data sets full of canaries."""

    def __init__(self) -> None:
        self.chance = random.Random(7)  # noqa: S311 not for secrets
        self.numbers = count(1)
        self._made: dict[tuple[object, ...], tuple[Dataset, bytes]] = {}

    def content(self, *which: object, make: Callable[[], Dataset]) -> tuple[str, bytes]:
        """Return an object of its own, and its UID.

        Made once for each sort of object, and given another UID each time: writing
        takes longer than all that a node does with it.
        """
        if which not in self._made:
            dataset = make()
            dataset.SOPInstanceUID = _UID
            self._made[which] = dataset, encoded(dataset)
        name = f"2.25.{10**36 + next(self.numbers)}"
        return name, self._made[which][1].replace(_UID.encode(), name.encode())

    def word(self) -> str:
        return f"{CANARY}{next(self.numbers)}"

    def one(self, sop_class: str = CT) -> Dataset:
        made = Dataset()
        # All kinds in each, and all elements in a few dozen.
        for tag, kind, _ in self.chance.sample(_WORDS, 60):
            word = self.word()
            # As bytes: many of these kinds of elements can hold no such text.
            value = f"{word}^{word}" if kind == "PN" else word
            value += " " * (len(value) % 2)
            made[tag] = RawDataElement(
                Tag(tag), kind, len(value), value.encode(), 0, False, True
            )
        for keyword in ("PatientName", "PatientID", "PatientComments", "StudyID"):
            setattr(made, keyword, self.word())
        block = made.private_block(0x0011, f"{CANARY} MAKER", create=True)
        block.add_new(1, "LO", self.word())
        block.add_new(2, "UN", self.word().encode())
        made.SOPClassUID, made.SOPInstanceUID = sop_class, uid.generate_uid()
        made.StudyInstanceUID = made.SeriesInstanceUID = uid.generate_uid()
        made.Modality = "CT" if sop_class == CT else "SR"
        if sop_class == CT:
            self._picture(made)
        return made

    def _picture(self, made: Dataset) -> None:
        made.Rows = made.Columns = 48
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 0
        made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.WindowCenter, made.WindowWidth = "1000", "2000"
        made.RescaleIntercept, made.RescaleSlope = "0", "1"
        ramp = np.arange(48 * 48, dtype="<u2").reshape(48, 48) % 1777
        made.PixelData = ramp.tobytes()


def encoded(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.generate_uid()
    dataset.file_meta = meta
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture
def receiver() -> Iterator[int]:
    """Take some, refuse others, and hang up on a few; its answers quote what came."""
    numbers = count()

    def store(event: Any) -> Any:
        number = next(numbers)
        if number % 23 == 22:
            event.assoc.abort()
            return 0xC000
        answer = Dataset()
        answer.Status = (0, 0, 0, 0xB000, 0xA700, 0xC001, 0x0110)[number % 7]
        if answer.Status:
            answer.ErrorComment = f"{CANARY}{number}: bad patient"
        return answer

    ae = AE("RESEARCH")
    for sop_class in (CT, REPORT):
        ae.add_supported_context(sop_class, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


def unmarked(what: Unmarked | None) -> dict[str, Any]:
    """Return what becomes of what gets no mark, on a route that marks."""
    return {} if what is None else {"not_images": what, "other_pixels": what}


class ForeignError(ValueError):
    """What a library raises, which quotes what it tripped over."""


class Node:
    """Everything that touches an object, in one process."""

    def __init__(self, folder: Path, port: int, keys: Sealer) -> None:
        self.folder, self.keys, self.now = folder, keys, NOW
        self.runs = count()

        self.config = Config(
            node=Listener(state=folder),
            destinations=(
                Destination(
                    name="pacs", ae_title="RESEARCH", host="127.0.0.1", port=port
                ),
            ),
            routes=tuple(
                Route(
                    name=name,
                    destinations=("pacs",),
                    action=action,
                    called_ae_titles=(name.upper(),),
                    **unmarked(what),
                )
                for name, action, what in (
                    ("mark", Action.MARK, Unmarked.PASS),
                    ("hold", Action.MARK, Unmarked.HOLD),
                    ("drop", Action.MARK, Unmarked.DROP),
                    ("pass", Action.PASS, None),
                    ("strip", Action.STRIP, None),
                )
            ),
            retry=Retry(max_attempts=2, max_faults=2),
        )
        self.queue = SqliteQueue(folder / "queue.sqlite", passed=self.config.passed)
        self.spool = Spool(folder / "spool")
        self.audit = Audit(folder / "audit.jsonl", bytes(32), lambda: self.now)
        self.lock = threading.Lock()
        self.senders = senders_of(self.config, folder, lambda: self.now)
        self.worker = worker_of(
            self.config,
            queue=self.queue,
            spool=self.spool,
            audit=self.audit,
            opening=lambda _: keys.opening(),
            mark=self.mark,
            refer=lambda *_: None,
            clock=lambda: self.now,
            senders=self.senders,
        )

    def mark(
        self,
        instance: OpenInstance,
        recipients: Sequence[object],  # noqa: ARG002
        *,
        marks_quantities: bool = False,  # noqa: ARG002
    ) -> MarkedInstance:
        number = next(self.runs)
        if number % 5 == 4:
            said = instance.attributes(0x00100010, 0x00100020)
            raise ForeignError(f"invalid value for {said.get('PatientID')}: {said}")
        if number % 5 == 3:
            cause = KeyError(str(instance.attributes(0x00104000)))
            raise OSError(5, "Input/output error", "a file") from cause
        outcome = marked_by_hand(instance, self.keys)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def take(self, content: bytes, called: str, announced: str) -> int:
        part = self.spool.incoming / "part"
        part.write_bytes(content)
        request = SimpleNamespace(AffectedSOPInstanceUID=announced, _dataset_file=None)

        def taken(received: Received) -> None:
            accept(
                received,
                config=self.config,
                spool=self.spool,
                queue=self.queue,
                lock=self.lock,
                room=Room(self.folder, self.config.storage),
                clock=lambda: self.now,
                patients=Patients(bytes(32)),
            )

        received = Received(part, "CT1", called)
        return _status_of(cast("Any", request), received, taken, 0x0111)

    def work(self) -> None:
        while self.worker.turn():
            pass
        self.now += timedelta(seconds=30)


def torn(content: bytes, chance: random.Random) -> bytes:
    """Cut it off, or change a byte; often within a text."""
    if chance.random() < 0.5:
        return content[: chance.randrange(200, len(content))]
    place = chance.randrange(200, min(len(content), 4000))
    return content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :]


def everything_said(node: Node, told: io.StringIO) -> dict[str, str]:
    """Return whatever a node says to anybody but receivers, by where it is said."""
    numbers = count()
    Transfers(
        node.queue.notes(),
        node.audit,
        lambda: node.now,
        lambda: f"b{next(numbers)}",
    ).tend(at_once=True)
    entries = list(node.audit.entries())
    origin = audit_message.Origin("node", "site", "NODE", "1")
    messages = [
        audit_message.message(Entry(Head(n, "00"), values), origin).decode()
        for n, values in enumerate(entries, 1)
    ]
    follower = node.audit.follower()
    lookout = Lookout(
        node.queue,
        follower,
        lambda: node.now,
        lack=lambda: "",
        down=lambda: {n: h.reason for n, h in node.senders._reachability.all().items()},
        certificates=(),
        backlog=timedelta(0),
        notice=timedelta(0),
    )
    notices = news(lookout.look(), Told(), with_uids=True)
    follower.close()
    tallies = node.queue.tallies(node.now)
    import os

    status = status_of(tallies, node.config, os.statvfs(node.folder), node.now)
    held = [job for state in JobState for job in node.queue.held(state)]
    return {
        "log": told.getvalue(),
        "audit": node.audit.path.read_text(),
        "syslog": "\n".join(messages),
        "details": "\n".join(str(values) for values in entries),
        "notices": "\n".join(notice.says for notice in notices),
        "status": "\n".join(status.lines()) + json.dumps(status.to_json()),
        "held": "\n".join(map(str, held)),
        "files": "\n".join(str(path) for path in node.folder.rglob("*")),
        "signed": str(telling.signed(b"", b"", 0)),
    }


@pytest.mark.timeout(900)  # a machine may be busy
def test_of_a_thousand_canaries_none_sings(
    tmp_path: Path, receiver: int, keys: Sealer
) -> None:
    told = io.StringIO()
    handlers = [logging.StreamHandler(told) for _ in log.Format]
    handlers[0].setFormatter(log.PlainFormatter())
    handlers[1].setFormatter(log.JsonFormatter())
    logger = logging.getLogger("dicom_node")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    node, canaries = Node(tmp_path, receiver, keys), Thousand()
    statuses: Counter[int] = Counter()
    try:
        for number in range(RUNS):
            _one(node, canaries, number, statuses)
            if number % 50 == 49:
                node.work()
        node.work()
        node.work()
        node.worker.rest()
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
    counts = node.queue.counts()
    said = everything_said(node, told)
    node.queue.close()
    # All of it has happened: taken in and refused, sent and not.
    assert sum(statuses.values()) == RUNS + RUNS // 50
    assert len(statuses) >= 4
    assert statuses[SUCCESS] > RUNS / 2
    for state in (JobState.SENT, JobState.HELD, JobState.QUARANTINED, JobState.DROPPED):
        assert counts[state] > 0, counts
    assert "ForeignError" in said["log"]
    assert "unexpected ForeignError" in said["held"]
    for where, text in said.items():
        assert text, where
        place = text.upper().find(CANARY)
        assert place < 0, (where, text[max(place - 300, 0) : place + 60])


def _one(node: Node, canaries: Thousand, number: int, statuses: Counter[int]) -> None:
    kind = number % 10
    called = ("MARK", "PASS", "MARK", "DROP", "PASS", "HOLD", "PASS", "HOLD")[kind % 8]
    if number % 50 == 1:
        called = "STRIP"
    if kind == 8 and number % 20 == 8:
        called = "NOBODY"

    def make() -> Dataset:
        dataset = canaries.one(REPORT if kind in {2, 3, 5} else CT)
        if kind == 7:
            dataset.BitsStored = 7  # a form that no mark fits
        if called == "NOBODY":
            dataset.Modality = canaries.word()
        return dataset

    which = (kind, number % 80, called == "NOBODY")
    name, content = canaries.content(*which, make=make)
    if kind == 9:
        content = torn(content, canaries.chance)
    statuses[node.take(content, called, name)] += 1
    if number % 50 == 0:
        # Other bytes under the same UID.
        other = content.replace(b"CANARY", b"CANARi")
        statuses[node.take(other, called, name)] += 1
