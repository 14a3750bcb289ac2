"""What the search makes small. One number an image, shapes written down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distance(logits: Tensor, aim: Tensor) -> Tensor:
    """Return how far each image is from the answers it is to be given; 0 once there.

    Args:
        logits: ``(batch, classes)``, before softmax; at least two classes.
        aim: By how many logits each class has to fall behind those that may be answered;
            0 for these, of which there is at least one, as there is of the others. A
            surrogate that is misled as far as that draws no effort any more. The shape
            of ``logits``.

    Returns:
        ``(batch,)``, in logits, at least 0. Differentiable in ``logits``.

    Source:
        Carlini and Wagner, 2017, arXiv:1608.04644, section V-A, their f6, for several
        classes at once and with a margin for each.
    """
    is_left = aim > 0
    left = (logits + aim).masked_fill(~is_left, -torch.inf).amax(dim=1)
    answered = logits.masked_fill(is_left, -torch.inf).amax(dim=1)
    return torch.relu(left - answered)


def held_possible(logits: Tensor, least: float) -> Tensor:
    """Return the classes that a classifier holds possible, at most half of them.

    Args:
        logits: ``(batch, classes)``, before softmax; at least two classes.
        least: How likely a class is, as a share of the likeliest, to be one of them.

    Returns:
        ``(batch, classes)``, bool; the likeliest class is always among them.
    """
    likelihood = logits.softmax(dim=1)
    ranked = likelihood.sort(dim=1, descending=True, stable=True)
    is_held = ranked.values >= least * ranked.values[:, :1]
    is_held[:, logits.shape[1] // 2 :] = False
    return torch.zeros_like(is_held).scatter(1, ranked.indices, is_held)


def feature_similarity(features: Tensor, anchor: Tensor) -> Tensor:
    """Return the cosine between ``features`` and ``anchor``, at least 0.

    Args:
        features: ``(batch, channels)``. Differentiable.
        anchor: The same, of the unmarked images.

    Returns:
        ``(batch,)``, 0..1; 1 where nothing has changed.

    Source:
        Zhang et al., 2022, "Beyond ImageNet attack" (BIA): the cosine of features of a
        label-free encoder.
    """
    return torch.relu(functional.cosine_similarity(features, anchor, dim=1))
