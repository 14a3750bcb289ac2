"""What the search makes small: by how much an image is still recognised."""

import torch

from miadmark_core.search.loss import capped_margin, held_possible


def test_what_is_held_possible_is_left_all_at_once() -> None:
    logits = torch.tensor([[3.0, 2.5, -4.0, 0.0]])
    held = held_possible(logits, 0.1)
    assert held.tolist() == [[True, True, False, False]]
    # The second of the two is beaten by the best of the others only now.
    assert capped_margin(logits, held, cap=1.0).item() == 4.0
    beaten = torch.tensor([[0.0, 1.0, 3.0, 0.0]])
    assert capped_margin(beaten, held, cap=1.0).item() == 0.0


def test_of_two_classes_one_is_held_possible() -> None:
    held = held_possible(torch.tensor([[0.1, 0.0], [-5.0, 5.0]]), 0.1)
    assert held.tolist() == [[True, False], [False, True]]


def test_at_most_half_are_held_possible_however_alike() -> None:
    held = held_possible(torch.zeros(1, 7), 0.1)
    assert held.sum() == 3
    sure = held_possible(torch.tensor([[9.0, 0, 0, 0, 0, 0, 0]]), 0.1)
    assert sure.sum() == 1
