"""A whole study on its way: what names an image names the marked one, and comes back."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.elements import Limits
from dicom_node.errors import (
    AlreadyMarkedError,
    LostRecordError,
    NodeError,
    NotAnImageError,
    NotGrantedError,
    RenamedError,
    ShreddedError,
)
from dicom_node.files import Outcome, tasks
from dicom_node.filters.foresight import foreseen
from dicom_node.filters.mark import mark
from dicom_node.filters.refer import ReferringInstance, refer
from dicom_node.filters.strip import strip
from dicom_node.found_marks import FoundMarks
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.naming import Naming
from dicom_node.opening import Opening
from dicom_node.protection import Others, protect
from dicom_node.rebuilding import rebuild
from dicom_node.renamings import Renamings
from dicom_node.restoration import restore
from dicom_node.state import opening_with
from miadmark_core.errors import DamagedSealError, Layer, NoStanzaError
from miadmark_core.sealing.recipients import Recipient
from miadmark_core.search.finder import Finder, FoundMark, Wanted
from tests.conftest import NOW, a_site, opened
from tests.studies import write_study

if TYPE_CHECKING:
    from dicom_node.filters.region import Regions
    from dicom_node.protection import Finish

STYLE = "standard auto"
OTHERS = (
    *("key-objects", "dose", "plan", "structures", "registration", "state"),
    *("report", "segmentation"),
)


@pytest.fixture(scope="module")
def site(keys: Sealer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(keys, tmp_path_factory.mktemp("site")) as site:
        yield site


class Site:
    """A ledger, its memory of names, and what marks and refers with them."""

    def __init__(self, keys: Sealer, folder: Path) -> None:
        self.keys = keys
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.renamings = Renamings(folder / "ledger.sqlite", keys.derive)
        self.naming = Naming(keys.derive, STYLE, self.renamings.find)
        self.found_marks = FoundMarks(folder / "ledger.sqlite", keys.derive)
        self.keep = keeper(
            keys.keyring, self.ledger, self.renamings, self.found_marks, lambda: NOW
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.renamings.__exit__(None, None, None)
        self.found_marks.__exit__(None, None, None)
        self.ledger.__exit__(None, None, None)

    def refer(self, instance: OpenInstance) -> ReferringInstance:
        referring = refer(instance, keys=self.keys, naming=self.naming, now=NOW)
        assert referring is not None
        return referring

    def opening(self) -> Opening:
        return opening_with(self.keys.keyring, self.ledger)

    def protect(self, source: Path, out: Path, finder: Finder) -> list[Outcome]:
        todo = tasks([source], out)
        names = foreseen((task.source for task in todo), self.naming)
        naming = replace(
            self.naming,
            remembered=lambda uid: names.get(uid) or self.renamings.find(uid),
        )

        def seek_all(
            instances: Sequence[OpenInstance],
            regions: Regions,  # noqa: ARG001
            *,
            marks_quantities: bool = False,
        ) -> Finish:
            return lambda _: [
                *mark(
                    instances,
                    find=finder.find,
                    keys=self.keys,
                    now=NOW,
                    holds_weak=False,
                    marks_quantities=marks_quantities,
                    style=STYLE,
                )
            ]

        def refer_one(
            instance: OpenInstance, _: Sequence[Recipient] = ()
        ) -> ReferringInstance | None:
            return refer(instance, keys=self.keys, naming=naming, now=NOW)

        return list(
            protect(
                todo,
                seek_all=seek_all,
                refer=refer_one,
                keep=self.keep,
                others=Others(),
                note=lambda *_: None,
            )
        )


@pytest.fixture(scope="module")
def study(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "in"
    write_study(images / "ct.dcm", folder)
    return folder


@pytest.fixture(scope="module")
def marked(study: Path, site: Site, finder: Finder) -> Path:
    """The study as it leaves, all of it."""
    out = study.parent / "out"
    outcomes = site.protect(study, out, finder)
    told = {o.source.stem[2:]: (o.status, o.reason) for o in outcomes}
    assert {told[name][0] for name in OTHERS} == {"referred"}, told
    assert Counter(o.status for o in outcomes) == {"referred": 8, "marked": 3}, told
    return out


def read(folder: Path) -> dict[str, Dataset]:
    return {path.stem[2:]: dcmread(path) for path in sorted(folder.glob("*.dcm"))}


def named_in(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Go through (keyword, UID) of all that names an instance or series."""
    for element in dataset:
        if (
            element.keyword == "SourceImageSequence"
            and "DerivationCodeSequence" in dataset
        ):
            continue  # what a marked picture was made of
        for item in element.value if element.VR == "SQ" else ():
            for keyword in ("ReferencedSOPInstanceUID", "SeriesInstanceUID", "UID"):
                if keyword in item:
                    yield keyword, str(item[keyword].value)
            yield from named_in(item)


def test_every_reference_of_the_marked_study_is_to_an_object_in_it(
    study: Path, marked: Path
) -> None:
    before, after = read(study), read(marked)
    instances = {d.SOPInstanceUID: n for n, d in after.items()}
    series = {d.SeriesInstanceUID for d in after.values()}
    were = {d.SOPInstanceUID: n for n, d in before.items()}
    studies = {d.StudyInstanceUID for d in after.values()}
    assert len(studies) == 1
    for name in (*OTHERS, "slice-1"):
        was, now = list(named_in(before[name])), list(named_in(after[name]))
        assert len(was) == len(now) > 0, name
        for (keyword, old), (_, new) in zip(was, now, strict=True):
            if keyword == "ReferencedSOPInstanceUID" and old not in studies:
                assert instances[new] == were[old], name
            elif keyword == "SeriesInstanceUID":
                assert new in series, name
        assert not set(were) & {uid for _, uid in now}, name


def test_the_series_that_a_segment_is_of_follows(study: Path, marked: Path) -> None:
    plain = [
        uid for keyword, uid in named_in(read(marked)["report"]) if keyword == "UID"
    ]
    assert read(marked)["slice-0"].SeriesInstanceUID in plain
    assert read(study)["slice-0"].SeriesInstanceUID not in plain


def test_a_marked_picture_names_its_source_and_its_marked_neighbour(
    study: Path, marked: Path
) -> None:
    (before, after) = (read(folder) for folder in (study, marked))
    slice_1 = after["slice-1"]
    (source,) = slice_1.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == before["slice-1"].SOPInstanceUID
    (localiser,) = slice_1.ReferencedImageSequence
    assert localiser.ReferencedSOPInstanceUID == after["slice-0"].SOPInstanceUID


def test_the_study_comes_back_byte_for_byte(
    study: Path, marked: Path, site: Site
) -> None:
    back = study.parent / "back"
    outcomes = list(restore(tasks([marked], back), opening=lambda _: site.opening()))
    assert {o.status for o in outcomes} == {"restored"}, outcomes
    for original in study.glob("*.dcm"):
        restored = opened(back / original.name)
        assert restored.file.dataset == opened(original).file.dataset, original
        assert restored.file.meta == opened(original).file.meta, original


def archived(path: Path, *changes: Callable[[Dataset], None]) -> OpenInstance:
    dataset = dcmread(path)
    for change in changes:
        change(dataset)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return OpenInstance.of(buffer.getvalue(), Limits())


def drop_block(dataset: Dataset) -> None:
    dataset.remove_private_tags()


def correct(dataset: Dataset) -> None:
    """What an archive does when a patient's name was wrong, and it knows of the order."""
    dataset.PatientName = "Corrected^Name"
    order = Dataset()
    order.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.3"
    order.ReferencedSOPInstanceUID = "1.2.3"
    dataset.ReferencedPerformedProcedureStepSequence = [order]


def implicit(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def explicit(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def deflated(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def undefined(dataset: Dataset) -> None:
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            element.is_undefined_length = True
            item.is_undefined_length_sequence_item = True
            undefined(item)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "changes",
    [[implicit], [explicit], [deflated], [undefined], [undefined, implicit]],
    ids=lambda changes: ", ".join(change.__name__ for change in changes),
)
@pytest.mark.parametrize("loses_block", [False, True])
def test_what_another_encoding_or_a_lost_block_leaves_comes_back(
    study: Path,
    marked: Path,
    site: Site,
    name: str,
    changes: list[Callable[[Dataset], None]],
    *,
    loses_block: bool,
) -> None:
    (path,) = marked.glob(f"?-{name}.dcm")
    changes = [*changes, correct, *([drop_block] if loses_block else [])]
    back = strip(archived(path, *changes), site.opening())
    assert back.is_from_ledger is loses_block
    assert (back.image, back.is_renamed) == (None, False)
    original = dcmread(study / path.name)
    restored = back.file.encoding.decode(back.file.dataset)
    for keyword in ("PatientName", "ReferencedPerformedProcedureStepSequence"):
        assert keyword in restored  # the archive's
        delattr(restored, keyword)
        if keyword in original:
            delattr(original, keyword)
    if "PixelData" in original:  # its VR is not said in Implicit VR
        restored["PixelData"].VR = original["PixelData"].VR
    assert restored == original


def point_elsewhere(dataset: Dataset) -> None:
    """Name the second image where the first was named."""
    names = [uid for keyword, uid in named_in(dataset) if keyword.startswith("Ref")]

    def change(item: Dataset, element: object) -> None:
        if getattr(element, "keyword", "") == "ReferencedSOPInstanceUID" and (
            item.ReferencedSOPInstanceUID == names[-1]
        ):
            item.ReferencedSOPInstanceUID = "2.25.1"

    dataset.walk(change)


def forget_one(dataset: Dataset) -> None:
    """Leave the last reference of the first sequence with some out."""
    for element in dataset:
        if element.VR == "SQ" and element.keyword != "ContributingEquipmentSequence":
            for item in element.value:
                if "ReferencedSOPInstanceUID" in item:
                    element.value = element.value[:-1]
                    return
                forget_one(item)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("change", [point_elsewhere, forget_one])
def test_an_altered_reference_is_refused(
    marked: Path, site: Site, name: str, change: Callable[[Dataset], None]
) -> None:
    (path,) = marked.glob(f"?-{name}.dcm")
    with pytest.raises(DamagedSealError) as refused:
        strip(archived(path, change), site.opening())
    assert refused.value.layer is Layer.CONTEXT
    with pytest.raises(LostRecordError):
        strip(archived(path, change, drop_block), site.opening())


def test_another_object_with_the_same_references_has_another_record(
    study: Path, marked: Path, site: Site
) -> None:
    """Two presentation states of one image differ in their names only."""
    twin = dcmread(study / "f-state.dcm")
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    twin.ContentLabel = "TWIN"
    buffer = io.BytesIO()
    twin.save_as(buffer)
    site.keep(site.refer(OpenInstance.of(buffer.getvalue(), Limits())))
    back = strip(archived(marked / "f-state.dcm", drop_block), site.opening())
    assert back.file.dataset == opened(study / "f-state.dcm").file.dataset


def test_a_renamed_object_comes_back_if_that_is_accepted(
    study: Path, marked: Path, site: Site
) -> None:
    def rename(dataset: Dataset) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(
            "1.2.3"
        )

    moved = archived(marked / "g-report.dcm", rename)
    with pytest.raises(RenamedError):
        strip(moved, site.opening())
    back = strip(moved, replace(site.opening(), accepts_renamed=True))
    assert back.is_renamed
    assert back.file.dataset == opened(study / "g-report.dcm").file.dataset


def test_whoever_has_to_be_asked_is_asked_before_any_key(
    marked: Path, site: Site
) -> None:
    def refuse(*_: object) -> None:
        raise NotGrantedError("no")

    opening = replace(site.opening(), authorise=refuse, openers=[])
    with pytest.raises(NotGrantedError):
        strip(opened(marked / "g-report.dcm"), opening)


def test_a_record_whose_key_was_destroyed_opens_nothing(
    study: Path, keys: Sealer, tmp_path: Path
) -> None:
    with Site(keys, tmp_path) as other:
        referring = other.refer(opened(study / "f-state.dcm"))
        other.keep(referring)
        sent = OpenInstance.of(referring.file.to_bytes(), Limits())
        opening = replace(other.opening(), own_tenant=keys.keyring.ring.tenant)
        record_id = strip(sent, opening).record_id
        other.ledger.shred(record_id, "test", NOW)
        with pytest.raises(ShreddedError):
            strip(sent, opening)


def test_a_lost_ledger_is_made_again_from_such_objects(
    study: Path, marked: Path, keys: Sealer, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        files = [marked / "g-report.dcm", marked / "h-segmentation.dcm"]
        done = rebuild(files, keys.keyring, ledger, [], set(), NOW)
        assert [what for _, what in done] == ["added", "added"]
        lost = archived(files[0], drop_block)
        back = strip(lost, opening_with(keys.keyring, ledger))
    assert back.file.dataset == opened(study / "g-report.dcm").file.dataset


def test_signatures_over_what_changes_go_and_come_back(study: Path, site: Site) -> None:
    signature, mac = Dataset(), Dataset()
    signature.MACIDNumber = mac.MACIDNumber = 1
    signature.Signature, mac.MACAlgorithm = bytes(16), "SHA256"

    def sign(dataset: Dataset) -> None:
        dataset.DigitalSignaturesSequence = [signature]
        dataset.MACParametersSequence = [mac]

    signed = archived(study / "g-report.dcm", sign)
    referring = site.refer(signed)
    site.keep(referring)
    sent = OpenInstance.of(referring.file.to_bytes(), Limits())
    assert 0xFFFAFFFA not in sent.elements
    assert 0x4FFE0001 not in sent.elements
    assert strip(sent, site.opening()).file.dataset == signed.file.dataset


def test_what_names_nothing_renamed_passes_as_it_is(study: Path, site: Site) -> None:
    def of_another_study(dataset: Dataset) -> None:
        dataset.StudyInstanceUID = "1.2.3.4.5"

    def about_nothing(dataset: Dataset) -> None:
        for keyword in ("ContentSequence", "CurrentRequestedProcedureEvidenceSequence"):
            delattr(dataset, keyword)

    forgetful = Naming(site.keys.derive, STYLE)
    report = archived(study / "g-report.dcm", about_nothing)
    assert refer(report, keys=site.keys, naming=forgetful, now=NOW) is None
    foreign = archived(study / "g-report.dcm", of_another_study)
    assert refer(foreign, keys=site.keys, naming=forgetful, now=NOW) is None
    # What the site remembers to have sent of another study follows.
    assert refer(foreign, keys=site.keys, naming=site.naming, now=NOW) is not None


@pytest.mark.parametrize("name", ["i-slice-0", "h-segmentation"])
def test_what_others_take_for_renamed_is_renamed_whatever_is_in_it(
    study: Path, site: Site, name: str
) -> None:
    def empty(dataset: Dataset) -> None:
        for element in list(dataset):
            if element.VR == "SQ" or element.keyword == "PixelData":
                del dataset[element.tag]

    bare = archived(study / f"{name}.dcm", empty)
    referring = site.refer(bare)
    site.keep(referring)
    own = bare.identity().sop_instance_uid
    assert referring.sop_instance_uid == site.naming.derived(own)
    sent = OpenInstance.of(referring.file.to_bytes(), Limits())
    assert strip(sent, site.opening()).file.dataset == bare.file.dataset


def test_another_style_is_another_name(study: Path, site: Site) -> None:
    original = opened(study / "f-state.dcm")
    other = replace(site.naming, style="logo auto")
    first = site.refer(original)
    second = refer(original, keys=site.keys, naming=other, now=NOW)
    assert second is not None
    assert second.sop_instance_uid != first.sop_instance_uid
    assert site.refer(original).sop_instance_uid == first.sop_instance_uid


def test_it_is_done_once(marked: Path, site: Site) -> None:
    with pytest.raises(AlreadyMarkedError):
        site.refer(opened(marked / "g-report.dcm"))


def test_the_table_of_names_holds_no_old_one(
    study: Path, marked: Path, tmp_path: Path, keys: Sealer
) -> None:
    old, new = (d["report"].SOPInstanceUID for d in (read(study), read(marked)))
    with Renamings(tmp_path / "l.sqlite", keys.derive) as renamings:
        assert renamings.find(old) is None
        renamings.add(old, new)
        renamings.add(old, new)
        assert renamings.find(old) == new
        renamings.add(old, "2.25.1")
        assert renamings.find(old) == "2.25.1"
    content = b"".join(file.read_bytes() for file in tmp_path.glob("l.sqlite*"))
    assert b"2.25.1" in content
    assert old.encode() not in content


def test_what_its_own_site_could_not_put_back_does_not_leave(
    study: Path, site: Site, tmp_path: Path
) -> None:
    """Every object is put back before it is sent: here the seal is for others only."""
    other = a_site(tmp_path)

    class ForOthers(Sealer):
        def opening(self) -> Opening:
            return replace(super().opening(), openers=other.opening().openers)

    keys = ForOthers(site.keys.keyring, site.keys.number)
    original = opened(study / "g-report.dcm")
    with pytest.raises(NoStanzaError):
        refer(original, keys=keys, naming=site.naming, now=NOW)


def nothing_is_searched(_: Sequence[Wanted]) -> list[FoundMark]:
    raise NodeError("a picture")


def test_every_object_of_the_corpus_that_names_images_comes_back(
    shared: Path, site: Site
) -> None:
    count = 0
    for path in sorted((shared / "dicom").rglob("*.dcm")):
        try:
            original = opened(path)
            (outcome,) = mark(
                [original],
                find=nothing_is_searched,
                keys=site.keys,
                now=NOW,
                holds_weak=False,
            )
        except NodeError:  # broken, or a picture
            continue
        if not isinstance(outcome, NotAnImageError):
            continue
        referring = refer(original, keys=site.keys, naming=site.naming, now=NOW)
        if referring is None:
            continue
        count += 1
        site.keep(referring)
        sent = OpenInstance.of(referring.file.to_bytes(), Limits())
        back = strip(sent, site.opening())
        assert back.file.dataset == original.file.dataset, path
    assert count >= 25


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_no_error_is_new_to_other_software(
    study: Path, marked: Path, name: str
) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("left out: dciodvfy is not installed (apt-get install dicom3tools)")
    (after,) = marked.glob(f"?-{name}.dcm")
    assert errors(after) - errors(study / after.name) == Counter()


def errors(path: Path) -> Counter[str]:
    done = subprocess.run(
        ["dciodvfy", path], capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    return Counter(line for line in said.splitlines() if line.startswith("Error"))
