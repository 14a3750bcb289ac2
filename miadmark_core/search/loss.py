"""What the search makes small. One number an image, shapes written down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def capped_margin(logits: Tensor, held: Tensor, cap: float) -> Tensor:
    """Return by how much each image is still recognised; 0 at ``-cap`` and below.

    The cap keeps one surrogate that is already misled from drawing all the effort.

    Args:
        logits: ``(batch, classes)``, before softmax; at least two classes.
        held: The classes that each image is to leave, at least one and not all.
            ``(batch, classes)``, bool.
        cap: In logits; at least 0.

    Returns:
        ``(batch,)``, at least 0. Differentiable in ``logits``.

    Source:
        Carlini and Wagner, 2017, arXiv:1608.04644, section V-A, their f6, for several
        classes at once and shifted by the cap.
    """
    own = logits.masked_fill(~held, -torch.inf).amax(dim=1)
    others = logits.masked_fill(held, -torch.inf).amax(dim=1)
    return torch.relu(own - others + cap)


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
