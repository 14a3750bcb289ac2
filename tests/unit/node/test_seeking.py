"""Marks that are asked for now and waited for later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from dicom_node.elements import Limits
from dicom_node.errors import ClusterError, UnforeseenError
from dicom_node.filters import seeking
from dicom_node.filters.mark import MarkedInstance, finish
from dicom_node.filters.seeking import Sought, seek
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from dicom_node.markers import one_by_one
from miadmark_core.search.finder import FoundMark, Wanted
from tests.archives import IMAGES
from tests.conftest import NOW
from tests.hand_marks import by_hand


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[OpenInstance]:
    """Three pictures, the second of another kind."""
    folder = tmp_path_factory.mktemp("originals")
    made = []
    for number, rows in enumerate((64, 80, 64)):
        one = dcmread(IMAGES / "ct.dcm")
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = UID(
            f"1.2.4.{number}"
        )
        one.PixelData = one.pixel_array[:rows, : rows + number].tobytes()
        one.Rows, one.Columns = rows, rows + number
        one.save_as(folder / f"{number}.dcm")
        made.append(OpenInstance.read(folder / f"{number}.dcm", Limits()))
    return made


class Search:
    """Says when it is asked and when it is waited for; dies of pictures of 80 rows."""

    def __init__(self, error: Callable[[str], Exception] | None = None) -> None:
        self.asked: list[int] = []
        self.waited = 0
        self._error = error

    def ask(self, wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        self.asked.append(len(wanted))

        def wait() -> list[FoundMark]:
            self.waited += 1
            if self._error and any(one.shown.shape[0] == 80 for one in wanted):
                raise self._error("it died")
            return by_hand(wanted)

        return wait


def finished(sought: Sought, keys: Sealer) -> list[object]:
    return [*finish(sought, keys=keys, now=NOW, holds_weak=False)]


def test_marks_are_asked_for_at_once_and_waited_for_once(
    originals: list[OpenInstance], keys: Sealer
) -> None:
    search = Search()
    sought = seek([*originals, originals[0]], ask=search.ask, keys=keys)
    assert (search.asked, search.waited) == ([3], 0)
    made = finished(sought, keys)
    assert (search.asked, search.waited) == ([3], 1)
    assert all(isinstance(one, MarkedInstance) for one in made)


def test_no_more_frames_lie_in_memory_than_are_searched_together(
    originals: list[OpenInstance], keys: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "SEARCHED_TOGETHER", 2)
    search = Search()
    sought = seek(originals, ask=search.ask, keys=keys)
    assert search.asked == [2]
    assert all(isinstance(one, MarkedInstance) for one in finished(sought, keys))
    assert search.asked == [2, 1]


def test_only_that_is_to_blame_of_which_whoever_searches_dies(
    originals: list[OpenInstance], keys: Sealer
) -> None:
    search = Search(UnforeseenError)
    first, second, third = finished(seek(originals, ask=search.ask, keys=keys), keys)
    assert isinstance(second, UnforeseenError)
    assert isinstance(first, MarkedInstance)
    assert isinstance(third, MarkedInstance)
    assert search.asked == [3, 1, 1, 1]


def test_a_cluster_that_is_gone_is_no_objects_fault(
    originals: list[OpenInstance], keys: Sealer
) -> None:
    sought = seek(originals, ask=Search(ClusterError).ask, keys=keys)
    with pytest.raises(ClusterError):
        finished(sought, keys)


def test_who_is_asked_again_of_what_was_not_found_has_too_few_of_nothing(
    originals: list[OpenInstance], keys: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking, "SEARCHED_TOGETHER", 1)
    errors = {2: ClusterError("it is away for a moment")}
    search = Search()

    def ask(wanted: Sequence[Wanted]) -> Callable[[], list[FoundMark]]:
        wait = search.ask(wanted)

        def waited() -> list[FoundMark]:
            if error := errors.pop(len(search.asked), None):
                raise error
            return wait()

        return waited

    sought = seek(originals, ask=ask, keys=keys)
    for wait in (*sought.new.values(), *sought.new.values()):
        with pytest.raises(ClusterError, match="for a moment"):
            wait()


def test_what_others_marked_meanwhile_gets_their_mark(
    originals: list[OpenInstance], keys: Sealer
) -> None:
    kept: dict[bytes, Sequence[FoundMark]] = {}
    sought = seek(originals[:1], ask=Search().ask, before=kept.get, keys=keys)
    (source,) = sought.new
    kept[source] = [FoundMark(np.full((64, 64, 1), 9, np.int8), {}, is_logo=True)]
    (made,) = finish(sought, before=kept.get, keys=keys, now=NOW, holds_weak=False)
    assert isinstance(made, MarkedInstance)
    assert made.found == tuple(kept[source])


def test_each_is_asked_for_alone_where_company_would_make_its_mark_another(
    originals: list[OpenInstance],
) -> None:
    asked: list[int] = []

    def seek_all(
        instances: Sequence[OpenInstance],
        _regions: object,
        *,
        marks_quantities: bool = False,
    ) -> Callable[[object], list[Exception]]:
        assert not marks_quantities
        asked.append(len(instances))
        return lambda _: [ClusterError(str(len(asked))) for _ in instances]

    finish_all = one_by_one(seek_all)(originals, {})  # type: ignore[arg-type]
    assert asked == [1, 1, 1]
    assert [str(one) for one in finish_all(())] == ["3"] * 3
