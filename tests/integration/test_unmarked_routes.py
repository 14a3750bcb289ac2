"""What a marking route does with what it does not mark: pass, hold or drop, written down.

A worker with the real filter, queue, spool and audit, and a receiver on loopback.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread, uid
from pynetdicom import AE, evt

from dicom_node.audit import Audit
from dicom_node.config import Config, Listener
from dicom_node.destination import Destination
from dicom_node.elements import Limits
from dicom_node.errors import QuantityError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import marker, referrer
from dicom_node.marking import Marking
from dicom_node.naming import nothing
from dicom_node.opening import Opening
from dicom_node.quantities import require_no_quantity
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queue.job import JobState
from dicom_node.queue.memory import MemoryQueue
from dicom_node.routing import Action, Route, Unmarked
from dicom_node.spool import Spool
from dicom_node.worker import Worker
from miadmark_core.search.finder import FoundMark
from tests.conftest import NOW, opened
from tests.workers import worker_of

Objects = dict[str, Path]


@dataclass
class Receiver:
    """A Storage SCP that takes everything, and what it was sent."""

    port: int = 0
    got: list[tuple[str, bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    def store(event: Any) -> int:
        dataset = event.request.DataSet.getvalue()
        receiver.got.append((str(event.request.AffectedSOPInstanceUID), dataset))
        return 0

    ae = AE("RESEARCH")
    for sop_class in (
        uid.CTImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.ParametricMapStorage,
        uid.EncapsulatedPDFStorage,
        uid.ComprehensiveSRStorage,
        uid.Comprehensive3DSRStorage,
    ):
        ae.add_supported_context(sop_class, uid.ExplicitVRLittleEndian)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    assert server is not None
    receiver.port = server.server_address[1]
    yield receiver
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def objects(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """One object for each reason not to mark it, and pictures to be marked."""
    folder = tmp_path_factory.mktemp("objects")

    def made(name: str, change: Callable[[Dataset], None]) -> Path:
        one = dcmread(images / "ct.dcm")
        change(one)
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid.UID(
            f"1.2.3.{int.from_bytes(hashlib.sha256(name.encode()).digest()[:6])}"
        )
        one.save_as(folder / f"{name}.dcm")
        return folder / f"{name}.dcm"

    def pet(units: str) -> Callable[[Dataset], None]:
        def change(one: Dataset) -> None:
            one.SOPClassUID = uid.PositronEmissionTomographyImageStorage
            one.Units = units

        return change

    def one_bit(one: Dataset) -> None:
        one.BitsAllocated = one.BitsStored = 1
        one.HighBit = one.PixelRepresentation = 0
        one.PixelData = bytes(one.Rows * one.Columns // 8)

    def wide(one: Dataset) -> None:
        one.BitsAllocated = one.BitsStored = 32
        one.HighBit = 31
        one.PixelData = bytes(4 * one.Rows * one.Columns)

    def floats(one: Dataset) -> None:
        shape = (one.Rows, one.Columns)
        del one.PixelData
        one.FloatPixelData = np.zeros(shape, np.float32).tobytes()

    def few(one: Dataset) -> None:
        one.PixelData = bytes(len(one.PixelData))

    def document(one: Dataset) -> None:
        one.SOPClassUID = uid.EncapsulatedPDFStorage
        del one.PixelData
        one.EncapsulatedDocument = b"%PDF"

    def parametric(one: Dataset) -> None:
        one.SOPClassUID = uid.ParametricMapStorage

    return {
        "report": images / "report-sr.dcm",
        "picture": images / "ct.dcm",
        "document": made("document", document),
        "parametric map": made("parametric map", parametric),
        "pet in suv": made("pet in suv", pet("GML")),
        "pet in becquerel": made("pet in becquerel", pet("BQML")),
        "1 bit": made("1 bit", one_bit),
        "32 bits": made("32 bits", wide),
        "float": made("float", floats),
        "few levels": made("few levels", few),
    }


NOT_IMAGES = {"report", "document", "parametric map", "pet in suv"}
OTHER_PIXELS = {"1 bit", "32 bits", "float", "few levels"}
AS_THEY_ARE = {"document"}
"""What refers to no picture and is none, nor a map of one."""
PICTURES = {"picture", "pet in becquerel"}


@dataclass
class Bench:
    """A worker and what it works with."""

    worker: Worker
    queue: MemoryQueue
    spool: Spool
    audit: Audit
    opening: Opening
    objects: Objects

    def do(self, name: str) -> JobState:
        """Take an object in, do one job, and return where that stands."""
        before = self.queue.counts()
        encoded = self.objects[name].read_bytes()
        sop_instance_uid = opened(self.objects[name]).identity().sop_instance_uid
        arrival = Arrival(
            sop_instance_uid,
            hashlib.sha256(encoded).digest(),
            self.spool.write([encoded]),
        )
        self.queue.add(arrival, [Owed("out", "research")], NOW)
        assert self.worker.turn()
        self.worker.rest()
        after = self.queue.counts()
        assert sum(after.values()) == sum(before.values()) + 1
        (state,) = (s for s in JobState if after[s] > before[s])
        return state


@pytest.fixture
def bench(
    tmp_path: Path, receiver: Receiver, keys: Sealer, objects: Objects
) -> Callable[..., Bench]:
    def mark_all(
        instances: Any, _regions: Any, _recipients: Any, *, marks_quantities: bool
    ) -> list[MarkedInstance | Exception]:
        steps = np.random.default_rng(1).integers(-60, 60, (112, 112, 1))
        return [
            *mark(
                instances,
                find=lambda wanted: [
                    FoundMark(steps.astype(np.int8), {}) for _ in wanted
                ],
                keys=keys,
                now=NOW,
                holds_weak=False,
                marks_quantities=marks_quantities,
            )
        ]

    def made(audit: Path | None = None, port: int = 0, **says: Any) -> Bench:
        config = Config(
            node=Listener(state=tmp_path),
            destinations=(
                Destination(
                    name="research",
                    ae_title="RESEARCH",
                    host="127.0.0.1",
                    port=port or receiver.port,
                ),
            ),
            routes=(
                Route(name="out", destination="research", action=Action.MARK, **says),
            ),
        )
        queue, spool = MemoryQueue(), Spool(tmp_path / "spool")
        written = Audit(audit or tmp_path / "audit", bytes(32), lambda: NOW)
        worker = worker_of(
            config,
            queue=queue,
            spool=spool,
            audit=written,
            opening=lambda _: keys.opening(),
            mark=marker(mark_all),  # type: ignore[arg-type]
            refer=referrer(keys, lambda: NOW, Marking(), nothing),
            clock=lambda: NOW,
            folder=tmp_path,
        )
        return Bench(worker, queue, spool, written, keys.opening(), objects)

    return made


def passes(bench: Bench, receiver: Receiver, name: str) -> None:
    """It is sent, under a new name if others may call it so; and the audit says so."""
    assert bench.do(name) is JobState.SENT
    instance = opened(bench.objects[name])
    identity = instance.identity()
    sent_as, dataset = receiver.got.pop()
    if name in AS_THEY_ARE:
        assert (sent_as, dataset) == (identity.sop_instance_uid, instance.file.dataset)
    else:
        file = instance.file.changed(dataset, sent_as, uid.ExplicitVRLittleEndian)
        sent = OpenInstance.of(file.to_bytes(), Limits())
        for tag in (0x7FE00008, 0x7FE00010):
            if tag in instance.elements:
                assert sent.elements.bytes_of(tag) == instance.elements.bytes_of(tag)
        assert sent_as != identity.sop_instance_uid
        assert strip(sent, bench.opening).file.dataset == instance.file.dataset
    *_, entry = bench.audit.entries()
    assert entry["event"] == "passed unmarked"
    assert entry["route"] == "out"
    assert entry["instance"] == identity.sop_instance_uid
    assert entry["sop_class"] == identity.sop_class_uid
    assert entry["reason"]


def drops(bench: Bench, receiver: Receiver, name: str) -> None:
    """It is settled unsent, and the audit says so."""
    assert bench.do(name) is JobState.DROPPED
    assert receiver.got == []
    assert bench.queue.files() == set()
    *_, entry = bench.audit.entries()
    identity = opened(bench.objects[name]).identity()
    assert entry["event"] == "dropped"
    assert (entry["route"], entry["instance"], entry["sop_class"]) == (
        "out",
        identity.sop_instance_uid,
        identity.sop_class_uid,
    )


def holds(bench: Bench, receiver: Receiver, name: str) -> None:
    assert bench.do(name) is JobState.HELD
    assert receiver.got == []
    assert list(bench.audit.entries()) == []


ENDS = {Unmarked.PASS: passes, Unmarked.DROP: drops, Unmarked.HOLD: holds}


def test_by_default_reports_pass_and_odd_pixels_are_held(
    bench: Callable[..., Bench], receiver: Receiver
) -> None:
    for name in sorted(NOT_IMAGES):
        passes(bench(), receiver, name)
    for name in sorted(OTHER_PIXELS):
        (Path(bench().audit.path)).unlink(missing_ok=True)
        holds(bench(), receiver, name)


@pytest.mark.parametrize("what", Unmarked)
def test_what_is_no_picture_goes_as_its_route_says(
    bench: Callable[..., Bench], receiver: Receiver, what: Unmarked
) -> None:
    for name in sorted(NOT_IMAGES):
        ENDS[what](bench(not_images=what), receiver, name)


@pytest.mark.parametrize("what", Unmarked)
def test_what_can_carry_no_mark_goes_as_its_route_says(
    bench: Callable[..., Bench], receiver: Receiver, what: Unmarked
) -> None:
    for name in sorted(OTHER_PIXELS):
        ENDS[what](bench(other_pixels=what, not_images="drop"), receiver, name)


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_is_marked_whatever_a_route_says_of_others(
    bench: Callable[..., Bench], receiver: Receiver, name: str
) -> None:
    made = bench(not_images=Unmarked.DROP, other_pixels=Unmarked.DROP)
    assert made.do(name) is JobState.SENT
    (sent,) = receiver.got
    assert sent[0] != opened(made.objects[name]).identity().sop_instance_uid
    assert list(made.audit.entries()) == []


@pytest.mark.parametrize("name", ["parametric map", "pet in suv"])
def test_quantities_are_marked_where_a_route_says_so(
    bench: Callable[..., Bench], receiver: Receiver, name: str
) -> None:
    made = bench(mark_quantities=True, not_images=Unmarked.HOLD)
    assert made.do(name) is JobState.SENT
    assert b"MIAD-MARK" in receiver.got[0][1]


@pytest.mark.parametrize("what", [Unmarked.PASS, Unmarked.DROP])
def test_nothing_passes_or_is_dropped_that_cannot_be_written_down(
    bench: Callable[..., Bench], receiver: Receiver, tmp_path: Path, what: Unmarked
) -> None:
    made = bench(audit=tmp_path / "no such folder" / "audit", not_images=what)
    assert made.do("report") is JobState.WAITING
    assert receiver.got == []


# pynetdicom leaves the socket of a connection that was refused to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_while_nobody_is_there_nothing_is_said_to_pass(
    bench: Callable[..., Bench],
) -> None:
    made = bench(port=9, not_images=Unmarked.PASS)
    assert made.do("report") is JobState.WAITING
    assert list(made.audit.entries()) == []


@pytest.mark.parametrize(
    ("code", "is_quantity"), [("{SUVbw}g/ml", True), ("Bq/ml", False)]
)
def test_enhanced_pet_says_its_units_in_its_mappings(
    objects: Objects, code: str, *, is_quantity: bool
) -> None:
    one = dcmread(objects["picture"])
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = (
        uid.EnhancedPETImageStorage
    )
    unit, mapping, group = Dataset(), Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator = code, "UCUM"
    mapping.MeasurementUnitsCodeSequence = [unit]
    group.RealWorldValueMappingSequence = [mapping]
    one.SharedFunctionalGroupsSequence = [group]
    written = BytesIO()
    one.save_as(written)
    instance = OpenInstance.of(written.getvalue(), Limits())
    if is_quantity:
        with pytest.raises(QuantityError):
            require_no_quantity(instance)
    else:
        require_no_quantity(instance)
