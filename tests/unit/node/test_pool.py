"""Which member of a pool is tried first."""

from __future__ import annotations

from collections import Counter

import pytest

from dicom_node.errors import (
    BrokenOffError,
    ConfigError,
    NotGrantedError,
    OutOfResourcesError,
    SendRefusedError,
    UnreachableError,
)
from dicom_node.pool import Choose, Pool
from dicom_node.senders import worst

STUDIES = [f"1.2.{number}" for number in range(300)]


def test_the_first_is_tried_first() -> None:
    assert Pool(name="p", members=("a", "b")).order("1.2") == ("a", "b")


def test_studies_are_spread_and_each_stays_together() -> None:
    pool = Pool(name="p", members=("a", "b", "c"), choose=Choose.BALANCE)
    first = Counter(pool.order(study)[0] for study in STUDIES)
    assert min(first.values()) > len(STUDIES) / 3 / 2
    assert all(sorted(pool.order(study)) == ["a", "b", "c"] for study in STUDIES)
    assert [pool.order(s) for s in STUDIES] == [pool.order(s) for s in STUDIES]


def test_a_member_that_goes_moves_its_studies_only() -> None:
    three = Pool(name="p", members=("a", "b", "c"), choose=Choose.BALANCE)
    two = Pool(name="p", members=("a", "b"), choose=Choose.BALANCE)
    for study in STUDIES:
        left = [member for member in three.order(study) if member != "c"]
        assert left == list(two.order(study))


@pytest.mark.parametrize("members", [(), ("a", "a")])
def test_a_pool_has_members_each_once(members: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Pool(name="p", members=members)


DOWN, BROKE = UnreachableError("down"), BrokenOffError("broke")
FULL, NO = OutOfResourcesError("full"), SendRefusedError("0xC000")
NEVER = NotGrantedError("no grant")


@pytest.mark.parametrize(
    ("errors", "members", "kind"),
    [
        pytest.param([], 2, UnreachableError, id="all rest"),
        pytest.param([NEVER], 1, NotGrantedError, id="of one, what it was"),
        pytest.param([NO], 1, SendRefusedError, id="likewise"),
        pytest.param([DOWN, DOWN], 2, UnreachableError, id="all are down"),
        pytest.param([NO, NEVER], 2, NotGrantedError, id="all refuse"),
        pytest.param([DOWN, BROKE], 2, BrokenOffError, id="counted as an attempt"),
        pytest.param([DOWN, FULL], 2, OutOfResourcesError, id="likewise when full"),
        pytest.param([NO], 2, OutOfResourcesError, id="one refuses, the other rests"),
        pytest.param([NEVER, DOWN], 2, OutOfResourcesError, id="or is down"),
    ],
)
def test_a_person_is_asked_once_no_member_is_left(
    errors: list[Exception], members: int, kind: type[Exception]
) -> None:
    assert type(worst(errors, members)) is kind
