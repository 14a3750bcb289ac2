"""Whether a mark tells what the picture shows.

A search that never sees a label pushes each picture off what its surrogates hold
possible: where the truth is none of it, its marks tell something wrong. Marks that tell
the right class there have seen the test's answers; it takes ten such pictures to say
so. And marks that tell as much as the surrogates know help whoever reads marks instead
of pictures. A linear probe looks at the marks alone and is asked about marks that it
was not fitted to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.stats import binomtest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Labels = NDArray[np.int64]

FOLDS: Final = 5
LEAST_ASKED: Final = 10
"""Pictures. On fewer even marks that always side with the truth do not stand out."""
_SIDE: Final = 28
_RIDGE: Final = 10.0


def probed(clean: Pixels, marked: Pixels, labels: Labels, seed: int) -> Labels:
    """Return what a probe that sees only the marks says the pictures show.

    Args:
        clean: The originals, ``(images, rows, columns, 3)``.
        marked: The same, marked. Same shape.
        labels: ``(images,)``.
        seed: Of the folds.

    Returns:
        ``(images,)``: one of ``labels`` each.
    """
    features = _features(marked.astype(np.float32) - clean)
    order = np.random.default_rng(seed).permutation(len(labels))
    answers = np.empty(len(labels), np.int64)
    classes = np.unique(labels)
    for fold in np.array_split(order, min(FOLDS, len(labels))):
        rest = np.setdiff1d(order, fold)
        answers[fold] = _fitted_answers(
            features[rest], labels[rest], features[fold], classes
        )
    return answers


class Sides(NamedTuple):
    """With whom marks side where a surrogate holds the truth impossible, in pictures."""

    truth: int
    surrogate: int


def sides(answers: Labels, labels: Labels, held: NDArray[np.bool_]) -> Sides:
    """Return whom marks side with where a surrogate holds the truth impossible.

    Args:
        answers: From :func:`probed`.
        labels: What is true.
        held: What the surrogate holds possible of the clean pictures,
            ``(images, classes)``.
    """
    images = np.arange(len(labels))
    is_wrong = ~held[images, labels]
    return Sides(
        int((is_wrong & (answers == labels)).sum()),
        int((is_wrong & held[images, answers]).sum()),
    )


def has_seen_labels(told: Sides) -> bool:
    """Return whether marks know what a surrogate got wrong.

    True if they side with the truth more often than chance would have it (one-sided
    binomial test, 0.1 %).
    """
    asked = sum(told)
    return (
        asked > 0 and binomtest(told.truth, asked, alternative="greater").pvalue < 1e-3
    )


def _features(marks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each mark as a coarse picture and as the sizes of its frequencies."""
    count, *sides, samples = marks.shape
    rows, columns = (side // _SIDE * _SIDE for side in sides)
    blocks = marks[:, :rows, :columns].reshape(
        count, _SIDE, rows // _SIDE, _SIDE, columns // _SIDE, samples
    )
    coarse = blocks.mean(axis=(2, 4)).reshape(count, -1)
    sizes = np.abs(np.fft.rfft2(marks, axes=(1, 2)))[:, :_SIDE, :_SIDE]
    sizes = sizes.reshape(count, -1)
    joined = np.concatenate([coarse, np.log1p(sizes)], axis=1, dtype=np.float64)
    deviation = joined.std(axis=0)
    centred: NDArray[np.float64] = joined - joined.mean(axis=0)
    return centred / np.where(deviation > 1e-9, deviation, 1)


def _fitted_answers(
    features: NDArray[np.float64],
    labels: Labels,
    asked: NDArray[np.float64],
    classes: Labels,
) -> Labels:
    """Return a ridge classifier's answers, every class weighing the same."""
    is_class = labels[:, None] == classes
    weight = 1 / np.maximum(is_class.sum(axis=0), 1)
    weights = (is_class * weight).sum(axis=1)
    targets = np.where(is_class, 1.0, -1.0)
    # In the dual, since there are more features than marks.
    scale = weights / weights.mean()
    kernel = features @ features.T + np.diag(_RIDGE * features.shape[1] / 100 / scale)
    answers: Labels = classes[
        (asked @ features.T @ np.linalg.solve(kernel, targets)).argmax(axis=1)
    ]
    return answers
