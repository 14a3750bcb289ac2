"""What stands in for the classifiers that nobody can ask.

A surrogate is shown what a model would be shown of the marked image, and answers with
one number an image: by how much it still recognises what it recognised before. No label
is needed, since a gateway has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.search.loss import capped_margin, feature_similarity, held_possible

if TYPE_CHECKING:
    from miadmark_core.search.networks import Classifier


class Surrogate(Protocol):
    """Something that recognises an image, and can be asked how well it still does."""

    @property
    def name(self) -> str:
        """Return how the manifest calls it."""
        ...

    def anchor(self, views: Tensor) -> Tensor:
        """Return what it recognises in the unmarked ``views``: one row an image."""
        ...

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return by how much each image is still recognised; differentiable.

        Args:
            views: ``(batch, 3, rows, columns)``, 0..1.
            anchor: From :meth:`anchor`, the same batch.

        Returns:
            ``(batch,)``, at least 0, about 1 for an unmarked image.
        """
        ...

    def log_likelihood(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the same without a floor: what published attacks make small.

        Returns:
            ``(batch,)``; differentiable.
        """
        ...

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return which images it no longer recognises. ``(batch,)``, bool."""
        ...

    def saliency(self, views: Tensor) -> Tensor:
        """Return how much each place of the unmarked ``views`` counts for it.

        Returns:
            ``(batch, rows, columns)`` of its last maps, at least 0.

        Source:
            Selvaraju et al., 2017, arXiv:1610.02391 (Grad-CAM). Behind a mean over each
            map and one linear layer its weights are the layer's own, so that nothing
            has to be differentiated.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierSurrogate:
    """A classifier for the task at hand.

    It is misled when its answer is none that it held possible before. The truth often
    is among these where it is wrong: pushed off its answer alone, an image would land
    there.
    """

    name: str
    network: Classifier
    """In evaluation mode, without gradients of its own."""
    size: int
    """Rows and columns of what it is shown."""

    def anchor(self, views: Tensor) -> Tensor:
        """Return what it thinks of each image: logits, ``(batch, classes)``."""
        with torch.no_grad():
            return self._logits(views)

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the capped margin of what it held possible, divided by the cap."""
        held = held_possible(anchor, POSSIBLE)
        return capped_margin(self._logits(views), held, cap=MARGIN_CAP) / MARGIN_CAP

    def log_likelihood(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the logarithm of the probability of the class it gave."""
        given = anchor.argmax(dim=1)
        return -functional.cross_entropy(self._logits(views), given, reduction="none")

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return which images it gives a class that it did not hold possible."""
        held = held_possible(anchor, POSSIBLE)
        with torch.no_grad():
            given = self._logits(views).argmax(dim=1, keepdim=True)
        return ~held.gather(1, given).squeeze(1)

    def saliency(self, views: Tensor) -> Tensor:
        """Return what spoke for the class it gives each image."""
        with torch.no_grad():
            maps = self.network.maps(resized(views, self.size))
            head = self.network.head
            answer = head(maps.mean(dim=(2, 3))).argmax(dim=1)
            return _weighted(maps, head.weight[answer])

    def _logits(self, views: Tensor) -> Tensor:
        logits: Tensor = self.network(resized(views, self.size))
        return logits


@dataclass(frozen=True, slots=True, eq=False)
class EncoderSurrogate:
    """An encoder without a task; misled when its features turn away.

    For images that no surrogate has a label for: what an ImageNet body sees is what
    most diagnostic models start from (Minagi et al., 2022, J. Imaging 8:38).
    """

    name: str
    network: Classifier
    size: int

    def anchor(self, views: Tensor) -> Tensor:
        """Return the features of each image. ``(batch, channels)``."""
        with torch.no_grad():
            return self._features(views)

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the cosine of old and new features, from 0."""
        return feature_similarity(self._features(views), anchor)

    def log_likelihood(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the cosine of old and new features, -1..1."""
        return functional.cosine_similarity(self._features(views), anchor, dim=1)

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return whose features lie more than 60 degrees away from what they were."""
        with torch.no_grad():
            return feature_similarity(self._features(views), anchor) < 0.5

    def saliency(self, views: Tensor) -> Tensor:
        """Return what its features come from: Grad-CAM of half their squared length."""
        with torch.no_grad():
            maps = self.network.maps(resized(views, self.size))
            return _weighted(maps, maps.mean(dim=(2, 3)))

    def _features(self, views: Tensor) -> Tensor:
        return self.network.features(resized(views, self.size))


POSSIBLE: Final = 0.1
"""How likely a class is, as a share of the likeliest, to count as held possible."""

MARGIN_CAP: Final = 2.0
"""In logits: where a surrogate counts as thoroughly misled and stops pulling."""


def resized(views: Tensor, size: int) -> Tensor:
    """Return ``views`` at ``size`` rows and columns, as a user's software would."""
    if views.shape[-1] != size:
        views = functional.interpolate(
            views, size=(size, size), mode="bilinear", antialias=True
        )
    return views.contiguous(memory_format=torch.channels_last)


def _weighted(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the maps of each image, where it is above 0."""
    return torch.relu(torch.einsum("nchw,nc->nhw", maps, weights))
