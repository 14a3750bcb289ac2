"""What classifiers say of a picture before and after it is marked.

torch is loaded by the first that is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from dicom_node.extras import extra
from dicom_node.finders import SHIPPED_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dicom_node.instance import Identity

    Shown = NDArray[np.float32]


SHIPPED_VICTIMS: Final = Path(__file__).parent / "demo" / "weights"
"""Classifiers that the search has never seen, for the demonstration."""


class Answer(NamedTuple):
    """What one classifier says of several pictures."""

    judge: str
    said: tuple[str, ...]
    """The class that it holds most likely, of each."""
    sure: tuple[float, ...]
    """How likely, 0..1."""

    @property
    def is_misled(self) -> bool:
        """Return whether it says something else of the last than of the first."""
        return self.said[0] != self.said[-1]


def answers(identity: Identity, pictures: Sequence[Shown]) -> list[Answer]:
    """Return what each classifier for an object's modality says.

    Surrogates, which the search looks through, and others that it has never seen.

    Args:
        identity: Of the object.
        pictures: What a viewer shows of it: ``(rows, columns, samples)``, 0..1.

    Raises:
        ConfigError: There is no torch here.
    """
    with extra("mark", "asking classifiers"):
        import torch

        from miadmark_core.evaluation.networks import ARCHITECTURES as VICTIMS
        from miadmark_core.search.networks import ARCHITECTURES
        from miadmark_core.search.packs import load_network, read_manifest, suited
        from miadmark_core.training.classifier import predict

    kind = (identity.modality, identity.body_part)
    surrogates = suited(read_manifest(SHIPPED_WEIGHTS), *kind)
    victims = suited(read_manifest(SHIPPED_VICTIMS), *kind, "victim")
    judges = [
        (f"surrogate {e.network}", SHIPPED_WEIGHTS, e, ARCHITECTURES)
        for e in surrogates
        if e.classes
    ]
    if judges:
        judges += [
            (f"held out {e.network}", SHIPPED_VICTIMS, e, VICTIMS) for e in victims
        ]
    found = []
    for name, folder, entry, architectures in judges:
        network = load_network(folder, entry, torch.device("cpu"), architectures)
        together = np.stack([_as_bytes(one) for one in pictures])
        likely = predict(network, together, entry.size).softmax(dim=1)
        best = likely.max(dim=1)
        found.append(
            Answer(
                name,
                tuple(entry.classes[number] for number in best.indices.tolist()),
                tuple(best.values.tolist()),
            )
        )
    return found


def _as_bytes(shown: Shown) -> NDArray[np.uint8]:
    pixels = np.rint(shown * 255).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
