"""What a classifier's answers are worth, in figures that do not flatter a mark.

Top-1 accuracy alone does: a model that always errs on two classes is a perfect model
read upside down. So beside it stand what is left after the best relabelling of the
outputs, the area under the curve whichever way round, the balanced accuracy, and an
interval. Everything here is a pure function of logits, labels and a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]
    """``(images, classes)``, before softmax."""
    Labels = NDArray[np.int64]
    """``(images,)``, 0 to classes - 1."""

RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one classifier makes of one stack of pictures. Shares are 0..1."""

    top1: float
    interval: tuple[float, float]
    """Of ``top1``: 95 %, by resampling images."""
    top1_of_right: float | None
    """Of the images that it gets right when they are clean; None where there is none."""
    balanced: float
    """The mean over the classes that occur."""
    auc: float
    """One class against the rest, max(AUC, 1 - AUC), mean over the classes; 0.5..1."""
    relabelled: float
    """``top1`` after the best one-to-one renaming of the outputs, chosen with the
    labels at hand: what an attacker who sees through the mark's habit could reach."""


def score(
    logits: Logits, labels: Labels, was_right: NDArray[np.bool_], seed: int
) -> Scores:
    """Return the scores of ``logits``.

    Args:
        logits: What the classifier said.
        labels: What is true. Same length, at least one image.
        was_right: Which images it gets right when they are clean.
        seed: Of the resampling.
    """
    answers = logits.argmax(axis=1)
    right = answers == labels
    low, high = interval(right, seed)
    return Scores(
        top1=float(right.mean()),
        interval=(low, high),
        top1_of_right=float(right[was_right].mean()) if was_right.any() else None,
        balanced=balanced_accuracy(answers, labels),
        auc=macro_auc(logits, labels),
        relabelled=relabelled_accuracy(answers, labels, logits.shape[1]),
    )


def interval(right: NDArray[np.bool_], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the share that is right, by resampling images."""
    samples = np.random.default_rng(seed).integers(
        0, len(right), (RESAMPLES, len(right))
    )
    low, high = np.percentile(right[samples].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def balanced_accuracy(answers: Labels, labels: Labels) -> float:
    """Return the mean, over the classes that occur, of the share that is right."""
    return float(
        np.mean([(answers[labels == c] == c).mean() for c in np.unique(labels)])
    )


def macro_auc(logits: Logits, labels: Labels) -> float:
    """Return the area under the curve, whichever way round, mean over the classes.

    A class is ranked by its probability, one against the rest.

    Source:
        Hanley and McNeil, 1982, "The meaning and use of the area under a receiver
        operating characteristic (ROC) curve": the Mann-Whitney statistic.
    """
    wide = logits.astype(np.float64)
    likely = np.exp(wide - wide.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    areas = []
    for number in np.unique(labels):
        is_member = labels == number
        members = int(is_member.sum())
        others = len(labels) - members
        if not others:
            continue
        ranks = rankdata(likely[:, number])
        area = (ranks[is_member].sum() - members * (members + 1) / 2) / (
            members * others
        )
        areas.append(max(area, 1 - area))
    return float(np.mean(areas)) if areas else 0.5


def relabelled_accuracy(answers: Labels, labels: Labels, classes: int) -> float:
    """Return the accuracy under the best one-to-one renaming of the answers."""
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (answers, labels), 1)
    rows, columns = linear_sum_assignment(-confusion)
    return float(confusion[rows, columns].sum() / len(labels))
