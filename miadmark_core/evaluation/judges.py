"""Classifiers that pictures are shown to, and what they answer.

Answers are kept: the same judge is asked about the same pictures once. Nothing here knows
what was done to the pictures, or whether the answers are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.evaluation import networks as victim_networks
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.search import networks as classifier_networks
from miadmark_core.training import preparation
from miadmark_core.training.classifier import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from miadmark_core.evaluation.store import Store
    from miadmark_core.search.networks import Classifier
    from miadmark_core.training.preparation import Preparation

    Pixels = NDArray[np.uint8]
    """``(images, rows, columns, 3)``."""
    Adapt = Callable[["Judge"], "Judge"]

WHITE: Final = "white"
BLACK: Final = "black"

_ASKED: Final = code_digest(
    [
        Path(classifier_networks.__file__),
        Path(victim_networks.__file__),
        Path(preparation.__file__),
    ]
)
"""Stands for how pictures are shown to networks, and what these are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """One classifier that pictures are shown to."""

    name: str
    is_surrogate: bool
    """Whether the search looked through it: white box."""
    network: Classifier
    """To be asked."""
    trainable: Callable[[], Classifier]
    """Returns the network as it was trained, to be trained further."""
    size: int
    preparation: Preparation
    sha256: str
    """Of its weights."""

    @property
    def box(self) -> str:
        """``white`` if the search looked through it, else ``black``."""
        return WHITE if self.is_surrogate else BLACK


def answers(
    judges: Sequence[Judge],
    store: Store,
    name: str,
    depends_on: tuple[object, ...],
    pixels: Callable[[], Pixels],
    adapt: Adapt | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return each judge's logits by its name, ``(images, classes)``.

    Args:
        judges: Whom to ask.
        store: Has the answers, or gets them.
        name: What the pictures are, for people.
        depends_on: Whatever would change the pictures.
        pixels: Returns them; asked only if some judge's answers are not there.
        adapt: What is done to each judge before it is asked.
    """
    made: list[Pixels] = []
    found: dict[str, NDArray[np.float32]] = {}
    for judge in judges:

        def make(judge: Judge = judge) -> Mapping[str, NDArray[np.generic]]:
            if not made:
                made.append(pixels())
            asked = judge if adapt is None else adapt(judge)
            logits = predict(asked.network, made[0], asked.size, asked.preparation)
            return {"logits": logits.numpy()}

        stored = store.arrays(
            f"answers-{name}-{judge.name}",
            (*depends_on, judge.sha256, judge.size, str(judge.preparation), _ASKED),
            make,
        )
        found[judge.name] = stored["logits"].astype(np.float32)
    return found
