"""One original, one mark: however often it comes, by whatever route, after whatever.

The search is replaced by one that never finds the same twice, so that nothing here rests
on its being repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from dicom_node.elements import Limits
from dicom_node.errors import AnotherMarkError, LedgerError
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.found_marks import FoundMarks
from dicom_node.instance import OpenInstance
from dicom_node.keepers import keeper
from dicom_node.keys.sealer import Sealer
from dicom_node.ledger import Ledger
from dicom_node.renamings import Renamings
from miadmark_core.sealing.record import parse
from miadmark_core.search.finder import FoundMark, Wanted
from tests.conftest import NOW, opened


@dataclass
class Search:
    """Finds another mark each time."""

    chance: np.random.Generator = field(default_factory=np.random.default_rng)
    searched: int = 0

    def find(self, wanted: Sequence[Wanted]) -> list[FoundMark]:
        self.searched += len(wanted)
        return [
            FoundMark(
                self.chance.integers(-30, 31, (64, 64, 1), np.int8), {"one": True}
            )
            for _ in wanted
        ]


class Site:
    """What a worker marks and keeps with; opened anew by another worker."""

    def __init__(self, folder: Path, keys: Sealer) -> None:
        path = folder / "ledger.sqlite"
        self.search, self.keys = Search(), keys
        self.ledger, self.found_marks = Ledger(path), FoundMarks(path, keys.derive)
        self.renamings = Renamings(path, keys.derive)
        self.keep = keeper(
            keys.keyring, self.ledger, self.renamings, self.found_marks, lambda: NOW
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for one in (self.ledger, self.found_marks, self.renamings):
            one.__exit__(None, None, None)

    def marked(
        self, original: OpenInstance, style: str = "fast auto", now: datetime = NOW
    ) -> MarkedInstance:
        (outcome,) = mark(
            [original],
            find=self.search.find,
            before=self.found_marks.find,
            keys=self.keys,
            now=now,
            holds_weak=True,
            style=style,
        )
        assert isinstance(outcome, MarkedInstance), outcome
        return outcome


@pytest.fixture
def site(tmp_path: Path, keys: Sealer) -> Iterator[Site]:
    with Site(tmp_path, keys) as site:
        yield site


@pytest.fixture
def original(images: Path) -> OpenInstance:
    return opened(images / "ct.dcm")


def pixels(marked: MarkedInstance) -> bytes:
    made = OpenInstance.of(marked.file.to_bytes(), Limits())
    return bytes(made.elements.value_of(0x7FE00010))


def with_window(original: OpenInstance, width: str) -> OpenInstance:
    dataset = original.file.encoding.decode(original.file.dataset)
    dataset.WindowCenter, dataset.WindowWidth = "40", width
    changed = original.file.changed(
        original.file.encoding.encode(dataset),
        str(dataset.SOPInstanceUID),
        original.file.transfer_syntax,
    )
    return OpenInstance.of(changed.to_bytes(), Limits())


def test_the_same_original_again_gets_the_same_mark(
    site: Site, original: OpenInstance, tmp_path: Path, keys: Sealer
) -> None:
    first = site.marked(original)
    site.keep(first)
    searched = site.search.searched
    later = site.marked(original, now=datetime(2031, 1, 1, tzinfo=UTC))
    site.keep(later)
    with Site(tmp_path, keys) as another:  # another process, another route
        third = another.marked(original)
        another.keep(third)
        assert another.search.searched == 0
    assert pixels(first) == pixels(later) == pixels(third)
    assert site.search.searched == searched


def test_the_same_original_twice_in_a_batch_gets_one_mark(
    site: Site, original: OpenInstance, images: Path
) -> None:
    other = opened(images / "chest-xray-normal.dcm")
    outcomes = mark(
        [other, original, original],
        find=site.search.find,
        before=site.found_marks.find,
        keys=site.keys,
        now=NOW,
        holds_weak=False,
    )
    for outcome in outcomes:
        assert isinstance(outcome, MarkedInstance)
        site.keep(outcome)
    assert site.search.searched == 2


def test_what_was_not_kept_did_not_leave_and_may_be_marked_otherwise(
    site: Site, original: OpenInstance
) -> None:
    assert pixels(site.marked(original)) != pixels(site.marked(original))


def test_two_workers_at_once_do_not_both_get_their_way(
    site: Site, original: OpenInstance
) -> None:
    one, other = site.marked(original), site.marked(original)
    site.keep(one)
    with pytest.raises(LedgerError, match="marked again likewise"):
        site.keep(other)
    again = site.marked(original)
    site.keep(again)
    assert pixels(again) == pixels(one)


def test_another_window_would_be_another_mark_and_does_not_leave(
    site: Site, images: Path
) -> None:
    original = opened(images / "ct.dcm")
    site.keep(site.marked(with_window(original, "400")))
    with pytest.raises(AnotherMarkError, match="another mark before"):
        site.keep(site.marked(with_window(original, "1600")))
    assert site.ledger.count() == 1


def test_another_way_to_mark_is_another_mark(site: Site, images: Path) -> None:
    original = opened(images / "ct.dcm")
    one, other = site.marked(original), site.marked(original, style="strong auto")
    site.keep(one)
    site.keep(other)
    assert one.sop_instance_uid != other.sop_instance_uid


def test_a_shredded_mark_is_gone_and_none_takes_its_place(
    site: Site, images: Path, tmp_path: Path
) -> None:
    original = opened(images / "ct.dcm")
    marked = site.marked(original)
    site.keep(marked)
    sealed = site.found_marks._kept(marked.source)
    assert sealed is not None
    assert sealed.sealed is not None
    site.ledger.shred(parse(marked.record.header).record_id, "test", NOW)
    assert site.found_marks.find(marked.source) is None
    assert sealed.sealed not in (tmp_path / "ledger.sqlite").read_bytes()
    with pytest.raises(AnotherMarkError, match="another mark"):
        site.keep(site.marked(original))


def test_what_is_kept_comes_back_as_it_was(site: Site) -> None:
    grids = np.arange(-120, 120, dtype=np.int8).reshape(2, 5, 8, 3)
    found = [
        FoundMark(grids[0], {"one": True, "other": False}),
        FoundMark(grids[1][:3, :2, :1], {}, is_logo=True),
    ]
    site.found_marks.keep(b"source", found, b"digest")
    back = site.found_marks.find(b"source")
    assert back is not None
    for one, other in zip(found, back, strict=True):
        assert np.array_equal(one.steps, other.steps)
        assert one[1:] == other[1:]
    assert site.found_marks.find(b"another") is None


def test_only_the_sites_keys_open_what_is_kept(
    site: Site, images: Path, tmp_path: Path
) -> None:
    marked = site.marked(opened(images / "ct.dcm"))
    site.keep(marked)
    with (
        FoundMarks(tmp_path / "ledger.sqlite", lambda _: bytes(32)) as strangers,
        pytest.raises(LedgerError, match="does not open"),
    ):
        strangers.find(marked.source)
