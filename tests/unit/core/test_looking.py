"""Eyes that look at the same time: what they say is one number, on any cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor

from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.batch import Batch, eyes_on
from miadmark_core.search.budget import budget_of
from miadmark_core.search.chance import apart
from miadmark_core.search.effort import Effort
from miadmark_core.search.looking import Glance, gradient, pulled
from miadmark_core.search.networks import ResNet14
from miadmark_core.search.optimise import optimise
from miadmark_core.search.parts import Crew
from miadmark_core.search.surrogate import ClassifierSurrogate
from miadmark_core.search.views import GRID_SIDE, SIDE, View, Window, view

if TYPE_CHECKING:
    from miadmark_core.search.chance import Chance

CPU = torch.device("cpu")
WINDOWS = (Window(), Window(0.25, 0.75))


def surrogates() -> list[ClassifierSurrogate]:
    made = []
    for seed, name in enumerate(("one", "other")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made.append(ClassifierSurrogate(name, ResNet14(4).eval(), 48))
    return made


class Witness(ClassifierSurrogate):
    """Notes its name and the window that it looks through, known by its contrast."""

    shown: ClassVar[list[tuple[str, int]]] = []

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        self.shown.append((self.name, int(views.std() > 0.33)))
        return super().recognition(views, anchor)

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:  # noqa: ARG002
        spread = views.std(dim=(1, 2, 3))
        return spread < 0.33 if self.name == "one" else spread > 0


def witnesses(*names: str) -> list[Witness]:
    network = surrogates()[0].network
    return [Witness(name, network, 48) for name in names]


def views(windows: tuple[Window, ...] = WINDOWS) -> list[View]:
    shown = torch.rand(2, 96, 80, 1, generator=chance(3)[0]).numpy()
    return [
        view(one, 8 / 255, windows=windows, spread=one[..., 0][None].repeat(2, 0))
        for one in shown
    ]


def batch_of(seen: list[View]) -> Batch:
    aim = Aim(Mode.ERROR, torch.full((2,), 0.5), 8.0)
    pixels = torch.stack([one.pixels for one in seen])
    anchors = [e.surrogate.remembered(pixels) for e in eyes_on(seen, surrogates())]
    return Batch(
        is_coloured=False,
        pixels=pixels,
        ends=torch.tensor([[(w.lower, w.upper) for w in one.windows] for one in seen]),
        budget=budget_of(seen, torch.zeros(2, 1, SIDE, SIDE), 36.0, CPU),
        anchors=tuple(surrogates()[0].anchor(a, aim) for a in anchors),
    )


@contextmanager
def cores(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chance(*seeds: int) -> Chance:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def grid() -> torch.Tensor:
    drawn = torch.randn(2, 1, GRID_SIDE, GRID_SIDE, generator=chance(5)[0])
    return 0.3 * drawn


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_pull_is_the_sum_of_what_each_would_say_alone(count: int) -> None:
    seen = views()
    batch, eyes = batch_of(seen), eyes_on(seen, surrogates())
    marked = batch.marked(grid())
    with Crew(1, CPU) as alone:
        each = [
            pulled(marked, batch._replace(anchors=(anchor,)), [eye], alone)
            for eye, anchor in zip(eyes, batch.anchors, strict=True)
        ]
    with cores(count), Crew(len(eyes), CPU) as crew:
        still, gradient = pulled(marked, batch, eyes, crew)
    assert len(eyes) == 4
    torch.testing.assert_close(still, sum(one.still for one in each))
    whole = torch.stack([one.gradient for one in each]).sum(dim=0)
    torch.testing.assert_close(gradient, whole, rtol=1e-4, atol=1e-6)
    assert whole.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_goes_where_all_glances_would_have_it(count: int) -> None:
    seen = views()
    batch, eyes = batch_of(seen), eyes_on(seen, surrogates())
    glances = [Glance(0, None), Glance(3, None)]
    with Crew(1, CPU) as alone:
        each = [gradient(grid(), batch, eyes, [one], alone) for one in glances]
    with cores(count), Crew(2, CPU) as crew:
        found = gradient(grid(), batch, eyes, glances, crew)
    assert each[0].any()
    assert each[1].any()
    largest = float(found.abs().max())
    torch.testing.assert_close(found, each[0] + each[1], rtol=0, atol=1e-4 * largest)


def test_what_glances_see_does_not_hang_on_how_many_cores_there_are() -> None:
    seen = views()
    batch, eyes = batch_of(seen), eyes_on(seen, surrogates())
    found = []
    for count in (1, 2):
        looks = [Glance(n, own) for n, own in enumerate(apart(chance(1, 2), 3))]
        with cores(count), Crew(len(looks), CPU) as crew:
            found.append(gradient(grid(), batch, eyes, looks, crew))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-6)


def test_one_who_looks_twice_sees_other_changes() -> None:
    seen = views()
    batch, eyes = batch_of(seen), eyes_on(seen, surrogates())
    first, second = apart(chance(1, 2), 2)
    with cores(1), Crew(1, CPU) as crew:
        one = gradient(grid(), batch, eyes, [Glance(0, first)], crew)
        other = gradient(grid(), batch, eyes, [Glance(0, second)], crew)
        unchanged = gradient(grid(), batch, eyes, [Glance(0, None)], crew)
    for each in (one, other):
        assert not torch.allclose(each, unchanged, rtol=1e-2)
    assert not torch.allclose(one, other, rtol=1e-2)


def test_who_draws_at_the_same_time_moves_nobody_else() -> None:
    first, second = apart(chance(1, 2), 2)
    torch.rand(5, generator=first[0])
    torch.rand(3, generator=first[1])
    _, undisturbed = apart(chance(1, 2), 2)
    for one, other in zip(second, undisturbed, strict=True):
        assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=other))
    # The next who ask get others.
    source = chance(1)
    ((once,), _), ((again,), _) = apart(source, 2), apart(source, 2)
    assert not torch.equal(
        torch.rand(4, generator=once), torch.rand(4, generator=again)
    )


@pytest.mark.parametrize(
    ("names", "windows", "expected"),
    [
        ("ab", 1, ["a0", "b0"] * 3),
        ("abc", 1, ["a0", "b0", "c0"] * 2),
        ("a", 2, ["a0", "a1"] * 3),
        ("ab", 2, ["a0", "b0", "a1", "b1", "a0", "b0"]),
        ("a", 1, ["a0"] * 3),
    ],
)
def test_eyes_look_by_turns_two_at_a_step(
    names: str, windows: int, expected: list[str]
) -> None:
    Witness.shown.clear()
    effort = Effort(steps=3, settling=0, is_changed=False)
    with cores(1):
        optimise(views(WINDOWS[:windows]), witnesses(*names), effort, chance(1, 2), CPU)
    assert [f"{name}{window}" for name, window in Witness.shown] == expected


def test_an_eye_without_another_looks_twice_through_changes() -> None:
    Witness.shown.clear()
    effort = Effort(steps=3, settling=0)
    with cores(1):
        optimise(views(WINDOWS[:1]), witnesses("a"), effort, chance(1, 2), CPU)
    assert [name for name, _ in Witness.shown] == ["a"] * 6


def test_who_is_not_misled_in_one_window_is_not_misled() -> None:
    # Half of the pixels lie outside the second window: there is more contrast in it.
    effort = Effort(steps=0, settling=0)

    def seen_behind(count: int) -> list[list[bool]]:
        marked = witnesses("one", "other")
        with cores(1):
            seen = views(WINDOWS[:count])
            return optimise(seen, marked, effort, chance(1, 2), CPU).misled.tolist()

    assert seen_behind(2) == [[False, True]] * 2
    assert seen_behind(1) == [[True, True]] * 2
