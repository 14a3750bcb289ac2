"""How well eyes still see what is marked, and whither each would have it changed.

Eyes look at the same time, a core each where there are some to spare, and what they say
is added in their order: how many cores there are changes how numbers round, and nothing
else. Nothing here knows how far a step goes, or when it is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from miadmark_core.mark import FULL_STEP
from miadmark_core.search.transform import transformed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from miadmark_core.search.batch import Batch, Eye
    from miadmark_core.search.chance import Chance
    from miadmark_core.search.parts import Crew


class Glance(NamedTuple):
    """One look of one eye at a step."""

    eye: int
    """Its number among the eyes."""
    changes: Chance | None
    """What it sees the images changed by, one source an image; None for unchanged."""


class Pull(NamedTuple):
    """What eyes say of marked images."""

    still: Tensor
    """The sum of squares of how far each image is from where it is led to; ``(batch,)``.
    The square favours whoever is least misled."""
    gradient: Tensor
    """Of its sum, by the marked images; their shape."""


def gradient(
    grid: Tensor,
    batch: Batch,
    eyes: Sequence[Eye],
    glances: Sequence[Glance],
    crew: Crew,
) -> Tensor:
    """Return whither some glances have ``grid`` changed: what is to be gone away from.

    Returns:
        The gradient, by ``grid``, of the sum of squares of how well each still sees.
    """

    def one(glance: Glance) -> Tensor:
        moving = grid.clone().requires_grad_()
        eye, anchor = eyes[glance.eye], batch.anchors[glance.eye]
        shown = batch.seen(batch.marked(moving), eye)
        if glance.changes is not None:
            shown = _changed(shown, glance.changes, eye, batch)
        square = _recognition(eye, shown, anchor).square()
        (found,) = torch.autograd.grad(square.sum(), moving)
        return found

    return torch.stack(crew.each(one, glances)).sum(dim=0)


def pulled(marked: Tensor, batch: Batch, eyes: Sequence[Eye], crew: Crew) -> Pull:
    """Return what all eyes say of marked images, as they are."""

    def one(index: int) -> Pull:
        seen = marked.clone().requires_grad_()
        shown = batch.seen(seen, eyes[index])
        square = _recognition(eyes[index], shown, batch.anchors[index]).square()
        if not square.detach().any():
            return Pull(square.detach(), torch.zeros_like(marked))
        return Pull(square.detach(), *torch.autograd.grad(square.sum(), seen))

    pulls = crew.each(one, range(len(eyes)))
    return Pull(*(torch.stack(said).sum(dim=0) for said in zip(*pulls, strict=True)))


def misled(grid: Tensor, batch: Batch, eyes: Sequence[Eye], crew: Crew) -> Tensor:
    """Return which eyes are misled, ``(batch, eyes)``, after rounding."""
    final = batch.marked((grid * FULL_STEP).round() / FULL_STEP)

    def one(index: int) -> Tensor:
        shown = batch.seen(final, eyes[index])
        return eyes[index].surrogate.is_misled(shown, batch.anchors[index])

    return torch.stack(crew.each(one, range(len(eyes))), dim=1)


def _changed(shown: Tensor, chance: Chance, eye: Eye, batch: Batch) -> Tensor:
    """Return what an eye is shown, each image changed at random as it would be alone."""
    size, coloured = eye.surrogate.size, batch.is_coloured
    return torch.cat(
        [
            transformed(shown[[n]], own, size, is_coloured=coloured)
            for n, own in enumerate(chance)
        ]
    )


def _recognition(eye: Eye, shown: Tensor, anchor: Tensor) -> Tensor:
    """Return how well an eye still sees: on a GPU in half precision where that will do.

    What a mark comes to is decided in full precision, by :func:`misled`.
    """
    with torch.autocast(shown.device.type, torch.bfloat16, enabled=shown.is_cuda):
        return eye.surrogate.recognition(shown, anchor).float()
