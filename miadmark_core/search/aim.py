"""What a mark is to make one classifier answer, and what not, as numbers.

Which of the two modes there are is :class:`~miadmark_core.mode.Mode`'s; here it becomes
a margin for each class. Nothing here knows networks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from miadmark_core.mode import Mode
from miadmark_core.search.loss import held_possible

POSSIBLE: Final = 0.1
"""How likely a class is, as a share of the likeliest, to count as held possible."""


class Aim(NamedTuple):
    """What to lead a batch of images to."""

    mode: Mode
    lots: Tensor
    """One an image, 0 to below 1: what its class is drawn with. ``(batch,)``."""
    margin: float
    """In logits: how far the classes that an image is to leave have to fall behind."""


def aimed(logits: Tensor, aim: Aim) -> Tensor:
    """Return by how many logits each class is to fall behind those that are left.

    Args:
        logits: Of the unmarked images, ``(batch, classes)``; at least two classes.
        aim: What to lead them to.

    Returns:
        The same shape as ``logits``, for :func:`~miadmark_core.search.loss.distance`.
        Where an image is to keep its answer the others have to fall behind further than
        they are, so that it carries as much of a mark as any.
    """
    classes = logits.shape[1]
    if aim.mode.of(classes) is Mode.ERROR:
        return aim.margin * held_possible(logits, POSSIBLE).to(logits)
    drawn = (aim.lots.to(logits) * classes).long().clamp(max=classes - 1)[:, None]
    others = logits.scatter(1, drawn, -torch.inf).amax(dim=1, keepdim=True)
    ahead = (logits.gather(1, drawn) - others).clamp(min=0)
    falls = (ahead + aim.margin).expand_as(logits)
    return falls.scatter(1, drawn, 0.0)
