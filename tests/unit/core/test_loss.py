"""What the search makes small: how far an image is from what it is led to."""

import torch

from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim, aimed
from miadmark_core.search.loss import distance, held_possible


def test_what_is_held_possible_is_left_all_at_once() -> None:
    logits = torch.tensor([[3.0, 2.5, -4.0, 0.0]])
    held = held_possible(logits, 0.1)
    assert held.tolist() == [[True, True, False, False]]
    # The second of the two is beaten by the best of the others only now.
    aim = aimed(logits, Aim(Mode.ERROR, torch.zeros(1), margin=1.0))
    assert torch.equal(aim > 0, held)
    assert distance(logits, aim).item() == 4.0
    beaten = torch.tensor([[0.0, 1.0, 3.0, 0.0]])
    assert distance(beaten, aim).item() == 0.0


def test_of_two_classes_one_is_held_possible() -> None:
    held = held_possible(torch.tensor([[0.1, 0.0], [-5.0, 5.0]]), 0.1)
    assert held.tolist() == [[True, False], [False, True]]


def test_at_most_half_are_held_possible_however_alike() -> None:
    held = held_possible(torch.zeros(1, 7), 0.1)
    assert held.sum() == 3
    sure = held_possible(torch.tensor([[9.0, 0, 0, 0, 0, 0, 0]]), 0.1)
    assert sure.sum() == 1


def test_information_is_a_class_drawn_by_lot_the_right_one_included() -> None:
    logits = torch.tensor([[5.0, 0.0]]).expand(3, 2)
    lots = torch.tensor([0.0, 0.49, 0.5])
    aim = aimed(logits, Aim(Mode.INFORMATION, lots, margin=2.0))
    assert (aim == 0).tolist() == [[True, False], [True, False], [False, True]]
    # What keeps its answer has as far to go as what loses it has beyond the border.
    assert distance(logits, aim).tolist() == [2.0, 2.0, 7.0]


def test_lots_reach_every_class_alike() -> None:
    lots = torch.arange(0, 1, 0.01)
    aim = aimed(torch.zeros(100, 4), Aim(Mode.INFORMATION, lots, margin=1.0))
    assert (aim == 0).sum(dim=0).tolist() == [25, 25, 25, 25]


def test_two_classes_are_led_by_lot_and_more_to_error() -> None:
    assert Mode.AUTO.of(2) is Mode.INFORMATION
    assert Mode.AUTO.of(4) is Mode.ERROR
    assert Mode.ERROR.of(2) is Mode.ERROR
