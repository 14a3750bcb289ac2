"""What goes to a machine that searches, and comes back: whole, sealed, and bound."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from dicom_node.errors import ClusterError, ConfigError
from dicom_node.search_message import (
    _ANSWER,
    KEY_SIZE,
    Answer,
    Request,
    SearchSeal,
    _packed,
    make_search_key,
    read_search_key,
)
from miadmark_core.search.finder import FoundMark, Wanted
from miadmark_core.search.views import Window

SEAL = SearchSeal(bytes(range(KEY_SIZE)))


def frame(seed: int, *, full: bool) -> Wanted:
    random = np.random.default_rng(seed)
    shown = random.random((7, 5, 1), np.float32)
    if not full:
        return Wanted(shown=shown, peak=0.03, modality="DX", body_part="", seed=seed)
    return Wanted(
        shown=shown,
        peak=-0.01,
        modality="CT",
        body_part="CHEST",
        seed=(1 << 63) - 1,
        number=3,
        padding=shown[..., 0] > 0.5,
        region=shown[..., 0] < 0.2,
        is_coarse=True,
        planes=1,
        windows=(Window(0.1, 0.4, 0.5), Window()),
        spread=random.random((2, 7, 5), np.float32),
    )


def are_same(one: Wanted, other: Wanted) -> bool:
    for field in fields(Wanted):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if isinstance(before, np.ndarray):
            if before.dtype != after.dtype or not np.array_equal(before, after):
                return False
        elif before != after:
            return False
    return True


def test_a_request_is_read_as_it_was_asked() -> None:
    asked = Request("search 1", (frame(1, full=False), frame(2, full=True)))
    sealed = SEAL.request(asked)
    read = SEAL.read_request(sealed)
    assert read.search == asked.search
    assert len(read.frames) == 2
    assert all(map(are_same, asked.frames, read.frames))
    assert isinstance(read.frames[1].windows[0], Window)
    assert SEAL.read_request(SEAL.request(Request("x", ()))) == Request("x", ())


def test_nothing_of_a_picture_is_seen_in_what_is_carried() -> None:
    one = frame(1, full=False)
    sealed = SEAL.request(Request("search 1", (one,)))
    assert one.shown.tobytes()[:16] not in sealed
    assert b"search 1" not in sealed
    assert sealed != SEAL.request(Request("search 1", (one,)))


def test_an_answer_is_read_as_it_was_given_and_answers_one_request() -> None:
    sealed, other = (SEAL.request(Request("x", ())) for _ in range(2))
    steps = np.arange(-60, 60, dtype=np.int8).reshape(8, 15, 1)
    marks = (FoundMark(steps, {"a": True, "b": False}, is_logo=True),)
    answer = SEAL.answer(Answer("x", "x here", marks), sealed)
    read = SEAL.read_answer(answer, sealed)
    assert (read.search, read.sameness) == ("x", "x here")
    np.testing.assert_array_equal(read.marks[0].steps, steps)
    assert read.marks[0].steps.dtype == np.int8
    assert read.marks[0][1:] == marks[0][1:]
    with pytest.raises(ClusterError, match="another key, or changed"):
        SEAL.read_answer(answer, other)
    with pytest.raises(ClusterError, match="another key, or changed"):
        SEAL.read_request(answer)


@pytest.mark.parametrize("at", [0, 20, -1])
def test_what_was_changed_or_cut_on_its_way_does_not_open(at: int) -> None:
    sealed = bytearray(SEAL.request(Request("x", (frame(1, full=False),))))
    sealed[at] ^= 1
    with pytest.raises(ClusterError):
        SEAL.read_request(bytes(sealed))
    with pytest.raises(ClusterError):
        SEAL.read_request(bytes(sealed[:5]))


def test_an_answer_that_holds_something_else_is_none() -> None:
    sealed = SEAL.request(Request("x", ()))
    strange = SEAL._sealed(_packed({"search": "x"}, [{"odd": 1}]), _ANSWER + sealed)
    with pytest.raises(ClusterError, match="no answer"):
        SEAL.read_answer(strange, sealed)
    nothing = SEAL._sealed(b"PK", _ANSWER + sealed)
    with pytest.raises(ClusterError, match="cannot be read"):
        SEAL.read_answer(nothing, sealed)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(ClusterError, match="another key"):
        SearchSeal(bytes(KEY_SIZE)).read_request(SEAL.request(Request("x", ())))


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cluster.key"
    make_search_key(path)
    key = read_search_key(path)
    make_search_key(path)
    assert read_search_key(path) == key
    assert len(key) == KEY_SIZE
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="read by others"):
        read_search_key(path)


def test_who_dies_while_making_a_key_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cluster.key"

    def dies(_count: int) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.urandom", dies)
        with pytest.raises(KeyboardInterrupt):
            make_search_key(path)
    make_search_key(path)
    assert len(read_search_key(path)) == KEY_SIZE
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("content", ["", "no hexadecimal", "ab" * 31])
def test_what_is_no_key_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.touch(0o600)
    path.write_text(content)
    with pytest.raises(ConfigError, match="key"):
        read_search_key(path)
    with pytest.raises(ConfigError, match="holds no key"):
        read_search_key(tmp_path / "none")
