"""Frames that are searched together: none gets another mark for it."""

import itertools
from dataclasses import replace
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dicom_node.finders import SHIPPED_WEIGHTS
from miadmark_core.search.chance import normal, of_part
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder, Wanted
from miadmark_core.search.logo import LogoEffort
from miadmark_core.search.parts import LARGEST_PART, Crew, parts_of

CPU = torch.device("cpu")
SIZES = ((96, 80), (64, 200), (300, 250))


def frames() -> list[Wanted]:
    """Of one kind and unlike sizes: something round on smooth ground, each elsewhere."""
    made = []
    for seed, (rows, columns) in enumerate(SIZES, start=1):
        down, across = np.linspace(0, 1, rows)[:, None], np.linspace(0, 1, columns)
        middle = 0.2 + 0.12 * seed
        distance = np.hypot(down - middle, across - 0.5)
        texture = 0.1 * np.random.default_rng(seed).random((rows, columns))
        shown = 0.3 + 0.5 * np.exp(-20 * distance**2) + texture
        made.append(
            Wanted(
                shown=shown[..., None].astype(np.float32),
                peak=8 / 255,
                modality="MR",
                body_part="BRAIN",
                seed=seed,
            )
        )
    return made


def alike(one: NDArray[np.int8], other: NDArray[np.int8]) -> float:
    """Return the correlation of two grids: arithmetic rounds otherwise in company."""
    return float(np.corrcoef(one.astype(float).ravel(), other.ravel())[0, 1])


@pytest.fixture(scope="module")
def finder() -> Finder:
    # Through random changes, and from noise: all that is drawn is drawn here.
    effort = Effort(steps=2, settling=0, only="efficientnet-lite0")
    return Finder(SHIPPED_WEIGHTS, device=CPU, effort=effort)


def test_a_frame_gets_in_company_the_mark_that_it_gets_alone(finder: Finder) -> None:
    together = finder.find(frames())
    for frame, found in zip(frames(), together, strict=True):
        (alone,) = finder.find([frame])
        assert alike(alone.steps, found.steps) > 0.95


def test_what_a_neighbour_draws_moves_no_mark(finder: Finder) -> None:
    before = finder.find(frames())
    first, *others = frames()
    after = finder.find([replace(first, seed=99), *others])
    assert alike(before[0].steps, after[0].steps) < 0.5
    for old, new in zip(before[1:], after[1:], strict=True):
        assert alike(old.steps, new.steps) > 0.95


def test_logos_lie_in_company_where_they_lie_alone() -> None:
    effort = LogoEffort(copies=1, rounds=1, population=2, generations=1, steps=1)
    finder = Finder(SHIPPED_WEIGHTS, device=CPU, effort=effort)
    together = finder.find(frames()[:2])
    for frame, found in zip(frames(), together, strict=False):
        (alone,) = finder.find([frame])
        assert alike(alone.steps, found.steps) > 0.95


def test_each_image_draws_from_its_own() -> None:
    def chance(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = normal(chance(1, 2), 5)
    torch.testing.assert_close(both[1:], normal(chance(2), 5))
    chosen = of_part(chance(1, 2, 3), torch.tensor([2, 0]))
    torch.testing.assert_close(normal(chosen, 5), normal(chance(3, 1), 5))


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_parts_are_worked_on_each_by_one_core_and_kept_in_order(cores: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        parts = parts_of(torch.arange(20))
        assert torch.cat(list(parts)).tolist() == list(range(20))
        assert max(map(len, parts)) <= LARGEST_PART
        assert len(parts) >= cores
        workers: dict[int, int] = {}

        def work(part: torch.Tensor) -> list[int]:
            workers[get_ident()] = torch.get_num_threads()
            return [2 * n for n in part.tolist()]

        with Crew(len(parts), CPU) as crew:
            found = itertools.chain(*crew.each(work, parts))
        assert list(found) == [2 * n for n in range(20)]
        assert set(workers.values()) == {1}
        assert (get_ident() in workers) == (cores == 1)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_one_part_is_said_and_leaves_the_cores_as_they_were() -> (
    None
):
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def work(part: torch.Tensor) -> None:
        if 3 in part.tolist():
            raise ValueError("the third")

    try:
        with pytest.raises(ValueError, match="third"), Crew(2, CPU) as crew:
            crew.each(work, parts_of(torch.arange(6)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_few_share_all_cores_and_what_is_alone_has_them() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with Crew(2, CPU) as crew:
            shares = crew.each(lambda _: torch.get_num_threads(), [1, 2, 3])
            assert crew.each(lambda _: torch.get_num_threads(), [1]) == [5]
        assert shares == [2, 2, 2]
        with Crew(2, torch.device("cuda")) as crew:
            threads = crew.each(lambda _: get_ident(), [1, 2])
        assert threads == [get_ident()] * 2
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


def test_a_crew_within_a_crew_keeps_the_cores_that_it_was_given() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    both_are_there, one_has_spoken = Barrier(2), Barrier(2)

    def work(part: int) -> int:
        both_are_there.wait(20)
        if part == 0:
            torch.set_num_threads(1)  # as an inner crew does for its own
        one_has_spoken.wait(20)
        return torch.get_num_threads()

    try:
        with Crew(2, CPU) as crew:
            assert crew.each(work, [0, 1]) == [1, 2]
    finally:
        torch.set_num_threads(before)
