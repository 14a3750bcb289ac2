"""The same original, marked by three nodes of one site, each with a folder of its own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import AnotherSearchError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.filters.strip import strip
from dicom_node.finders import may_search
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.pseudonyms import LABEL, Patients
from dicom_node.sameness import keep_search, kept_search
from dicom_node.state import State, opening_with
from miadmark_core.search.finder import Finder
from tests.conftest import opened
from tests.fleet import NOON, Site

FILES = ("ct.dcm", "brain-mr-glioma.dcm")
RECORD = 0x0077
"""Group of the block with the sealed record: nonces, its id and number, a time."""
TIMES = frozenset({0x0018A002})
"""Contribution DateTime (PS3.3 C.12.1): when the object was derived."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[State]:
    site = Site(tmp_path_factory.mktemp("site"))
    return [site.lead, *site.joined("n1", "n2")]


def marked(state: State, original: OpenInstance, finder: Finder) -> MarkedInstance:
    keys = state.keys()
    with (
        state.ledger() as ledger,
        state.found_marks(keys) as found,
        state.renamings(keys) as renamings,
    ):
        (outcome,) = mark(
            [original],
            find=finder.find,
            before=found.find,
            keys=Sealer(keys, ledger.number),
            # Each node's clock says something else.
            now=NOON + timedelta(seconds=len(state.folder.name)),
            holds_weak=False,
            style="fast auto",
        )
        assert isinstance(outcome, MarkedInstance), outcome
        keeper(keys, ledger, renamings, found, lambda: NOON)(outcome)
    return outcome


def differing(one: Dataset, other: Dataset) -> set[int]:
    """Tags of elements that differ, at any depth, by the innermost."""
    found: set[int] = set()
    for tag in one.keys() | other.keys():
        mine, theirs = one.get(tag), other.get(tag)
        if mine == theirs:
            continue
        is_sequence = mine is not None and theirs is not None and mine.VR == "SQ"
        if is_sequence and len(mine.value) == len(theirs.value):
            for a, b in zip(mine.value, theirs.value, strict=True):
                found |= differing(a, b)
        else:
            found.add(int(tag))
    return found


@pytest.mark.parametrize("name", FILES)
def test_pixels_names_and_mark_are_the_same(
    nodes: list[State], images: Path, finder: Finder, name: str
) -> None:
    original = opened(images / name)
    made = [marked(state, original, finder) for state in nodes]
    assert len({one.marked_digest for one in made}) == 1
    assert len({one.sop_instance_uid for one in made}) == 1
    assert len({one.source for one in made}) == 1
    files = [OpenInstance.of(one.file.to_bytes(), Limits()) for one in made]
    assert len({bytes(one.elements.value_of(PIXEL_DATA)) for one in files}) == 1
    decoded = [one.file.encoding.decode(one.file.dataset) for one in made]
    for other in decoded[1:]:
        assert len(other) == len(decoded[0])
        assert {
            tag
            for tag in differing(decoded[0], other)
            if tag >> 16 != RECORD and tag not in TIMES
        } == set()


def test_any_of_them_takes_the_mark_off(
    nodes: list[State], images: Path, finder: Finder
) -> None:
    """By the keys; where the ledger is asked, it has to be the one of who marked."""
    original = opened(images / FILES[0])
    sent = marked(nodes[1], original, finder)
    read = OpenInstance.of(sent.file.to_bytes(), Limits())
    restored = strip(read, Sealer(nodes[2].keys(), lambda: 1).opening())
    assert restored.file.dataset == original.file.dataset
    keys = nodes[1].keys()
    with nodes[1].ledger() as ledger:
        assert strip(read, opening_with(keys, ledger)).file.dataset


def test_a_patient_has_one_pseudonym(nodes: list[State], images: Path) -> None:
    original = opened(images / FILES[1])
    keys = [state.keys().derive(LABEL) for state in nodes]
    named = {Patients(key).of(original) for key in keys}
    assert len(named) == 1


def test_a_node_whose_search_is_another_marks_nothing(
    tmp_path: Path, finder: Finder
) -> None:
    site = Site(tmp_path)
    (node,) = site.joined("n1", search=finder.sameness)
    may_search(node.folder, node.keys(), finder.sameness)
    assert kept_search(node.folder) == finder.sameness
    with pytest.raises(AnotherSearchError, match="other marks than its site"):
        may_search(node.folder, node.keys(), f"{finder.sameness}, or not")
    (other,) = Site(tmp_path / "other").joined("n1")
    with pytest.raises(AnotherSearchError, match="the lead has not said"):
        may_search(other.folder, other.keys(), finder.sameness)
    keep_search(site.lead.folder, "whatever it is")
    may_search(site.lead.folder, site.lead.keys(), "the lead's is the site's")
