"""What stands in for the classifiers that nobody can ask.

A surrogate is shown what a model would be shown of the marked image, and answers with
one number an image: by how much it still recognises what it recognised before. No label
is needed, since a gateway has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.search.aim import aimed
from miadmark_core.search.loss import distance, feature_similarity

if TYPE_CHECKING:
    from miadmark_core.search.aim import Aim
    from miadmark_core.search.networks import Classifier


class Look(NamedTuple):
    """What a surrogate makes of unmarked images.

    Source:
        Selvaraju et al., 2017, arXiv:1610.02391 (Grad-CAM). Behind a mean over each map
        and one linear layer its weights are the layer's own, so that nothing has to be
        differentiated.
    """

    remembered: Tensor
    """What it says of each image, a row each."""
    saliency: Tensor
    """How much each place counts for it: ``(batch, rows, columns)`` of its last maps, at
    least 0."""


class Surrogate(Protocol):
    """Something that recognises an image, and can be asked how well it still does."""

    @property
    def name(self) -> str:
        """Return how the manifest calls it."""
        ...

    @property
    def size(self) -> int:
        """Return the rows and columns of what it is shown."""
        ...

    def remembered(self, views: Tensor) -> Tensor:
        """Return what it says of the unmarked ``views``: a row an image."""
        ...

    def looked(self, views: Tensor) -> Look:
        """Return what it says of the unmarked ``views``, and where it looks for it."""
        ...

    def anchor(self, remembered: Tensor, aim: Aim) -> Tensor:
        """Return what these images are to be led away from: a row an image."""
        ...

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return how far each image still is from what it is led to; differentiable.

        Args:
            views: ``(batch, 3, rows, columns)``, 0..1.
            anchor: From :meth:`anchor`, the same batch.

        Returns:
            ``(batch,)``, at least 0.
        """
        ...

    def log_likelihood(self, views: Tensor, remembered: Tensor) -> Tensor:
        """Return how likely it still says so: what published attacks make small.

        Returns:
            ``(batch,)``; differentiable.
        """
        ...

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return which images it answers as they were led to. ``(batch,)``, bool."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierSurrogate:
    """A classifier for the task at hand.

    Led away from its answer, it is misled when its answer is none that it held possible
    before. The truth often is among these where it is wrong: pushed off its answer
    alone, an image would land there.
    """

    name: str
    network: Classifier
    """In evaluation mode, without gradients of its own."""
    size: int
    """Rows and columns of what it is shown."""

    def remembered(self, views: Tensor) -> Tensor:
        """Return what it thinks of each image: logits, ``(batch, classes)``."""
        with torch.no_grad():
            return self._logits(views)

    def anchor(self, remembered: Tensor, aim: Aim) -> Tensor:
        """Return by how much classes are to fall behind. ``(batch, classes)``."""
        return aimed(remembered, aim)

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return how many times two logits each image is from where it is led to."""
        return distance(self._logits(views), anchor) / LOGITS

    def log_likelihood(self, views: Tensor, remembered: Tensor) -> Tensor:
        """Return the logarithm of the probability of the class it gave."""
        given = remembered.argmax(dim=1)
        return -functional.cross_entropy(self._logits(views), given, reduction="none")

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return which images it gives a class that they were not to leave."""
        with torch.no_grad():
            given = self._logits(views).argmax(dim=1, keepdim=True)
        return anchor.gather(1, given).squeeze(1) == 0

    def looked(self, views: Tensor) -> Look:
        """Return its logits, and what spoke for the class it gives each image."""
        with torch.no_grad():
            maps = self.network.maps(resized(views, self.size))
            head = self.network.head
            logits = head(maps.mean(dim=(2, 3)))
            return Look(logits, _weighted(maps, head.weight[logits.argmax(dim=1)]))

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

    def remembered(self, views: Tensor) -> Tensor:
        """Return the features of each image. ``(batch, channels)``."""
        with torch.no_grad():
            return self._features(views)

    def anchor(self, remembered: Tensor, aim: Aim) -> Tensor:  # noqa: ARG002
        """Return ``remembered``: all there is to be led away from."""
        return remembered

    def recognition(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return the cosine of old and new features, from 0."""
        return feature_similarity(self._features(views), anchor)

    def log_likelihood(self, views: Tensor, remembered: Tensor) -> Tensor:
        """Return the cosine of old and new features, -1..1."""
        return functional.cosine_similarity(self._features(views), remembered, dim=1)

    def is_misled(self, views: Tensor, anchor: Tensor) -> Tensor:
        """Return whose features lie more than 60 degrees away from what they were."""
        with torch.no_grad():
            return feature_similarity(self._features(views), anchor) < 0.5

    def looked(self, views: Tensor) -> Look:
        """Return its features and whence they are: Grad-CAM of half their square."""
        with torch.no_grad():
            maps = self.network.maps(resized(views, self.size))
            features = maps.mean(dim=(2, 3))
            return Look(features, _weighted(maps, features))

    def _features(self, views: Tensor) -> Tensor:
        return self.network.features(resized(views, self.size))


LOGITS: Final = 2.0
"""So many count as one, beside the cosine that an encoder's similarity is."""


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
