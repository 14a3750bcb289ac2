"""What the search makes small. One number an image, shapes written down."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def capped_margin(logits: Tensor, label: Tensor, cap: float) -> Tensor:
    """Return by how much each image is still recognised; 0 at ``-cap`` and below.

    The cap keeps one surrogate that is already misled from drawing all the effort.

    Args:
        logits: ``(batch, classes)``, before softmax; at least two classes.
        label: The class each image is to leave. ``(batch,)``, int64.
        cap: In logits; at least 0.

    Returns:
        ``(batch,)``, at least 0. Differentiable in ``logits``.

    Source:
        Carlini and Wagner, 2017, arXiv:1608.04644, section V-A, their f6, shifted by
        the cap.
    """
    own = logits.gather(1, label[:, None]).squeeze(1)
    others = logits.scatter(1, label[:, None], -torch.inf)
    return torch.relu(own - others.amax(dim=1) + cap)


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
