"""References at any depth: found, renamed, and put back, in every encoding."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node import nesting
from dicom_node.elements import Elements, Limits, scan, splice
from dicom_node.errors import MalformedObjectError
from dicom_node.part10 import Encoding
from dicom_node.redirecting import SOURCE_IMAGES, redirected, renaming
from dicom_node.references import Reader, Reference, digest

CT = "1.2.840.10008.5.1.4.1.1.2"
STEP = "1.2.840.10008.3.1.2.3.3"
IMPLICIT, EXPLICIT, BIG = (
    Encoding(True, True),
    Encoding(False, True),
    Encoding(False, False),
)
ENCODINGS = [IMPLICIT, EXPLICIT, BIG]

HOLDERS = [
    "ReferencedSeriesSequence",
    "ReferencedSOPSequence",
    "ContentSequence",
    "ReferencedImageSequence",
    "SourceImageSequence",
    "PerFrameFunctionalGroupsSequence",
    "RTReferencedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence",
]


def rename(reference: Reference) -> str | None:
    """Instances of odd series get new names, longer or shorter ones."""
    series, number = reference.sop_instance_uid.split(".")[-2:]
    return f"2.25.{'7' * int(number)}.{series}.{number}" if int(series) % 2 else None


def rename_series(series: str) -> str:
    return f"2.25.99.{series}"


def reference(series: int, number: int, sop_class: str = CT) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = f"1.2.3.{series}.{number}"
    return item


def encoded(dataset: Dataset, encoding: Encoding) -> Elements:
    return scan(encoding.encode(copy.deepcopy(dataset)), encoding, Limits())


def renamed(elements: Elements, keeps: frozenset[int] = frozenset()) -> Dataset:
    """Return the data set after renaming, decoded; what is put back is what was."""
    changes = redirected(
        elements,
        renaming(elements, rename, rename_series, keeps=keeps),
        keeps=keeps,
    )
    after = scan(splice(elements, changes), elements.encoding, Limits())
    before = {tag: elements.bytes_of(tag) for tag in changes}
    assert splice(after, before) == elements.encoded
    return elements.encoding.decode(after.encoded)


def expected(dataset: Dataset) -> Dataset:
    """Return what renaming comes to, worked out on decoded data sets."""
    after = copy.deepcopy(dataset)
    instances: dict[str, str] = {}
    series: dict[str, str] = {}
    for item, around in items_in(after):
        name = str(item.get("ReferencedSOPInstanceUID", ""))
        new = rename(Reference("", name, "")) if name else None
        if new:
            instances[name] = new
            series |= {around: rename_series(around)} if around else {}
    new_names = {
        "ReferencedSOPInstanceUID": instances,
        "SeriesInstanceUID": series,
        "UID": instances | series,
    }
    for item, _ in list(items_in(after)):
        for keyword, names in new_names.items():
            if keyword in item:
                item[keyword].value = names.get(
                    item[keyword].value, item[keyword].value
                )
    return after


def items_in(dataset: Dataset, around: str = "") -> Iterator[tuple[Dataset, str]]:
    """Go through all items, each with the series around it."""
    for element in dataset:
        for item in element.value if element.VR == "SQ" else ():
            here = str(item.get("SeriesInstanceUID", around))
            yield item, here
            yield from items_in(item, here)


@st.composite
def entries(draw: st.DrawFn, depth: int, series: int | None) -> Dataset:
    """An item: a reference, a series, a plain UID, text, more items; or none of them."""
    item = Dataset()
    own = draw(st.integers(0, 3))
    if series is None and draw(st.booleans()):
        series = own
        item.SeriesInstanceUID = f"1.2.3.{series}"
    number = draw(st.integers(1, 9))
    if draw(st.booleans()):
        item.update(reference(own if series is None else series, number))
    plain = ["1.9", f"1.2.3.{own}", f"1.2.3.{own}.{number}"]
    item.UID = draw(st.sampled_from(plain))
    item.TextValue = draw(st.text("abc", max_size=5))
    item.ConceptNameCodeSequence = [Dataset()]
    item.ConceptNameCodeSequence[0].CodeValue = "A"
    for keyword in draw(st.sets(st.sampled_from(HOLDERS), max_size=2 * (depth > 0))):
        setattr(item, keyword, draw(st.lists(entries(depth - 1, series), max_size=2)))
    item.is_undefined_length_sequence_item = draw(st.booleans())
    for element in item:
        if element.VR == "SQ":
            element.is_undefined_length = draw(st.booleans())
    return item


@st.composite
def data_sets(draw: st.DrawFn) -> Dataset:
    dataset = draw(entries(2, None))
    for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "UID"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SOPInstanceUID = "1.2.3.1.1"
    dataset.SeriesInstanceUID = "1.2.3.1"
    return dataset


@settings(max_examples=60)
@given(data_sets(), st.sampled_from(ENCODINGS))
def test_every_reference_is_renamed_and_nothing_else(
    dataset: Dataset, encoding: Encoding
) -> None:
    assert renamed(encoded(dataset, encoding)) == expected(dataset)


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=20)
@given(dataset=data_sets())
def test_the_digest_is_of_references_not_of_how_they_are_written(
    dataset: Dataset, encoding: Encoding, *, undefined: bool
) -> None:
    before = digest(encoded(dataset, EXPLICIT))
    again = copy.deepcopy(dataset)
    for item, _ in [(again, ""), *items_in(again)]:
        item.is_undefined_length_sequence_item = undefined
        for element in item:
            if element.VR == "SQ":
                element.is_undefined_length = undefined
    again.PatientName = "Somebody^Else"
    assert digest(encoded(again, encoding)) == before
    again.ContentSequence = [*again.get("ContentSequence", []), reference(5, 5)]
    assert digest(encoded(again, encoding)) != before


@settings(max_examples=60)
@given(data_sets(), st.data())
def test_any_other_reference_is_another_digest(
    dataset: Dataset, data: st.DataObject
) -> None:
    dataset.ReferencedImageSequence = [reference(1, 1)]
    names = ("ReferencedSOPInstanceUID", "ReferencedSOPClassUID", "UID")
    found = [
        element
        for item, _ in items_in(dataset)
        for element in item
        if element.keyword in (*names, "SeriesInstanceUID")
    ]
    before = digest(encoded(dataset, EXPLICIT))
    one = data.draw(st.sampled_from(found))
    one.value = CT + ".1" if one.keyword == "ReferencedSOPClassUID" else "1.2.3.3.77"
    assert digest(encoded(dataset, EXPLICIT)) != before


def series_of(*references: Dataset, series: int = 1) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = f"1.2.3.{series}"
    item.RetrieveAETitle = "ARCHIVE"
    item.ReferencedSOPSequence = list(references)
    return item


def test_a_series_of_which_some_are_renamed_is_listed_twice() -> None:
    dataset = Dataset()
    odd, even = reference(1, 1), reference(2, 2)
    dataset.ReferencedSeriesSequence = [series_of(odd, even), series_of(even, series=4)]
    kept, new, other = renamed(encoded(dataset, EXPLICIT)).ReferencedSeriesSequence
    assert kept == series_of(even)
    assert other == series_of(even, series=4)
    assert new.SeriesInstanceUID == "2.25.99.1.2.3.1"
    assert [r.ReferencedSOPInstanceUID for r in new.ReferencedSOPSequence] == [
        rename(Reference("", "1.2.3.1.1", ""))
    ]


def test_where_the_original_is_to_be_had_and_signatures_of_it_go() -> None:
    dataset, mac = Dataset(), Dataset()
    mac.MACAlgorithm = "SHA256"
    one, two = reference(1, 1), reference(2, 2)
    for item in (one, two):
        item.ReferencedSOPInstanceMACSequence = [copy.deepcopy(mac)]
    unrelated = series_of(two, series=2)
    dataset.ReferencedSeriesSequence = [series_of(one), unrelated]
    dataset.ReferencedSeriesSequence[0].DigitalSignaturesSequence = [mac]
    dataset.ReferencedSeriesSequence[0].MACParametersSequence = [mac]
    new, same = renamed(encoded(dataset, IMPLICIT)).ReferencedSeriesSequence
    assert [e.keyword for e in new] == ["ReferencedSOPSequence", "SeriesInstanceUID"]
    assert "ReferencedSOPInstanceMACSequence" not in new.ReferencedSOPSequence[0]
    assert same == unrelated


def test_sources_keep_their_names_and_whatever_else_names_them() -> None:
    dataset = Dataset()
    dataset.SourceImageSequence = [reference(1, 1)]
    dataset.ReferencedImageSequence = [reference(1, 1), reference(1, 2)]
    dataset.ReferencedSeriesSequence = [series_of(reference(1, 1), reference(1, 2))]
    after = renamed(encoded(dataset, EXPLICIT), SOURCE_IMAGES)
    assert after.SourceImageSequence == dataset.SourceImageSequence
    same, new = after.ReferencedImageSequence
    assert same == reference(1, 1)
    assert new.ReferencedSOPInstanceUID.startswith("2.25.")
    assert [s.SeriesInstanceUID for s in after.ReferencedSeriesSequence] == [
        "1.2.3.1",
        "2.25.99.1.2.3.1",
    ]


def test_what_history_and_private_elements_say_stays() -> None:
    dataset, modified, before = Dataset(), Dataset(), Dataset()
    before.ReferencedImageSequence = [reference(1, 1)]
    modified.ModifiedAttributesSequence = [before]
    dataset.OriginalAttributesSequence = [modified]
    dataset.private_block(0x0099, "SOMEBODY", create=True).add_new(
        1, "SQ", [reference(1, 1)]
    )
    dataset.ReferencedImageSequence = [reference(1, 1)]
    after = renamed(encoded(dataset, EXPLICIT))
    assert after.OriginalAttributesSequence == dataset.OriginalAttributesSequence
    assert after[0x0099, 0x1001].value == [reference(1, 1)]
    assert after.ReferencedImageSequence != dataset.ReferencedImageSequence


@pytest.mark.parametrize("undefined", [True, False])
def test_a_sequence_whose_vr_is_unknown_is_one_all_the_same(*, undefined: bool) -> None:
    dataset = Dataset()
    dataset.ReferencedImageSequence = [reference(1, 1)]
    dataset["ReferencedImageSequence"].is_undefined_length = undefined
    implicit = bytes(encoded(dataset, IMPLICIT).encoded)
    # PS3.5 6.2.2: UN, and inside it Implicit VR.
    unknown = implicit[:4] + b"UN\0\0" + implicit[4:]
    elements = scan(unknown, EXPLICIT, Limits())
    new = redirected(elements, renaming(elements, rename, rename_series))
    assert b"2.25.7.1.1" in (new[0x00081140] or b"")
    assert digest(elements) == digest(encoded(dataset, EXPLICIT))


def test_the_study_a_reference_is_of_is_told() -> None:
    dataset, evidence = Dataset(), Dataset()
    evidence.StudyInstanceUID = "1.5"
    evidence.ReferencedSeriesSequence = [series_of(reference(1, 1))]
    dataset.PertinentOtherEvidenceSequence = [evidence]
    dataset.ReferencedImageSequence = [reference(1, 1), reference(1, 2)]
    asked: list[Reference] = []

    def ask(one: Reference) -> None:
        asked.append(one)

    renaming(encoded(dataset, EXPLICIT), ask, rename_series)
    assert asked == [
        Reference(CT, "1.2.3.1.1", "1.5"),
        Reference(CT, "1.2.3.1.2", ""),
    ]


def test_what_archives_write_of_their_worklists_is_not_in_the_digest() -> None:
    dataset = Dataset()
    dataset.ReferencedImageSequence = [reference(1, 1)]
    before = digest(encoded(dataset, EXPLICIT))
    dataset.ReferencedPerformedProcedureStepSequence = [reference(1, 1, STEP)]
    assert digest(encoded(dataset, EXPLICIT)) == before


def test_depth_and_number_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = reference(1, 1)
    for _ in range(nesting.MAX_DEPTH + 1):
        outer = Dataset()
        outer.ContentSequence = [dataset]
        dataset = outer
    with pytest.raises(MalformedObjectError, match="nested more than"):
        digest(encoded(dataset, EXPLICIT))
    monkeypatch.setattr(nesting, "MAX_ELEMENTS", 10)
    many = Dataset()
    many.ContentSequence = [reference(1, n) for n in range(6)]
    with pytest.raises(MalformedObjectError, match="more than 10 elements"):
        digest(encoded(many, EXPLICIT))


@given(st.integers(8, 200), st.binary(min_size=1, max_size=4))
def test_a_damaged_sequence_is_read_or_refused(place: int, damage: bytes) -> None:
    dataset = Dataset()
    dataset.ReferencedSeriesSequence = [series_of(reference(1, 1), reference(2, 2))]
    whole = bytearray(encoded(dataset, EXPLICIT).encoded)
    whole[place : place + len(damage)] = damage
    try:
        elements = scan(bytes(whole), EXPLICIT, Limits())
        list(Reader(elements).found())
        digest(elements)
        redirected(elements, renaming(elements, lambda _: "1.2", lambda _: "1.3"))
    except MalformedObjectError:
        pass


def test_a_plain_uid_beneath_a_series_that_stays_may_name_one_that_does_not() -> None:
    dataset, stays, plain, moves = Dataset(), Dataset(), Dataset(), Dataset()
    plain.UID = "1.2.3.1"
    stays.SeriesInstanceUID, moves.SeriesInstanceUID = "1.2.3.0", "1.2.3.1"
    stays.ReferencedSOPSequence = [reference(0, 1)]
    stays.ContentSequence = [plain]
    moves.ReferencedSOPSequence = [reference(1, 1)]
    dataset.ReferencedSeriesSequence = [stays, moves]
    after = renamed(encoded(dataset, IMPLICIT))
    assert after == expected(dataset)
    first, _ = after.ReferencedSeriesSequence
    assert first.ContentSequence[0].UID == "2.25.99.1.2.3.1"
    assert first.SeriesInstanceUID == "1.2.3.0"
