"""What a classifier's answers are worth, in figures that do not flatter a mark.

Top-1 accuracy alone does: a model that always errs on two classes is a perfect model
read upside down. So beside it stand what is left after the best relabelling of the
outputs, the area under the curve whichever way round, the balanced accuracy, and an
interval for each. Everything here is a pure function of logits, labels and a seed.

A sample is drawn with replacement within each class, so that a rare one is in all of
them; it is a row of counts, how often each image is in it. Every figure is worked out for
many samples at once, and for the images themselves, each once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]
    """``(images, classes)``, before softmax."""
    Labels = NDArray[np.int64]
    """``(images,)``, 0 to classes - 1."""
    Counts = NDArray[np.float64]
    """``(samples, images)``: how often each image is in each sample."""
    Shares = NDArray[np.float64]
    """``(samples,)``, 0..1."""

RESAMPLES: Final = 1000


class Interval(NamedTuple):
    """95 %, by resampling images within their classes."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Of the figures of the same name in :class:`Scores`."""

    top1: Interval
    top1_of_right: Interval | None
    balanced: Interval
    auc: Interval
    relabelled: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What one classifier makes of one stack of pictures. Shares are 0..1."""

    top1: float
    top1_of_right: float | None
    """Of the images that it gets right when they are clean; None where there is none."""
    balanced: float
    """The mean over the classes that occur."""
    auc: float
    """One class against the rest, max(AUC, 1 - AUC), mean over the classes; 0.5..1."""
    relabelled: float
    """``top1`` after the best one-to-one renaming of the outputs, chosen with the
    labels at hand: what an attacker who sees through the mark's habit could reach."""
    intervals: Intervals
    """Those of ``auc`` and ``relabelled`` lean upwards, as both choose the better way
    round in each sample anew."""
    resampled_top1: Shares = field(repr=False, compare=False)
    """Of each sample, so that means over classifiers of the same images have intervals
    too."""


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
    classes = logits.shape[1]
    # The first row is the images themselves.
    counts = np.concatenate([each_once(len(labels)), resampled(labels, seed)])
    n = len(labels)
    of_samples = accuracy(answers == labels, counts)
    top1, top1_interval = _estimate(of_samples, n)
    balanced, balanced_interval = _estimate(
        balanced_accuracy(answers, labels, counts), n
    )
    auc, auc_interval = _estimate(macro_auc(logits, labels, counts), n)
    renamed, renamed_interval = _estimate(
        relabelled_accuracy(answers, labels, classes, counts), n
    )
    of_right, of_right_interval = None, None
    if was_right.any():
        of_right, of_right_interval = _estimate(
            accuracy((answers == labels)[was_right], counts[:, was_right]),
            int(was_right.sum()),
        )
    return Scores(
        top1=top1,
        top1_of_right=of_right,
        balanced=balanced,
        auc=auc,
        relabelled=renamed,
        intervals=Intervals(
            top1=top1_interval,
            top1_of_right=of_right_interval,
            balanced=balanced_interval,
            auc=auc_interval,
            relabelled=renamed_interval,
        ),
        resampled_top1=of_samples[1:],
    )


def each_once(images: int) -> Counts:
    """Return the sample that has every image once, ``(1, images)``."""
    return np.ones((1, images))


def resampled(labels: Labels, seed: int) -> Counts:
    """Return :data:`RESAMPLES` samples drawn with replacement within each class.

    One image less than a class has is drawn, and counts for as many more: drawing all
    would make a class of four a quarter too sure of itself.

    Source:
        Rao and Wu, 1988, "Resampling inference with complex survey data".
    """
    random = np.random.default_rng(seed)
    counts = np.ones((RESAMPLES, len(labels)))
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        n = len(members)
        if n > 1:
            drawn = random.multinomial(n - 1, np.full(n, 1 / n), RESAMPLES)
            counts[:, members] = drawn * (n / (n - 1))
    return counts


def interval(share: float, samples: Shares, images: int) -> Interval:
    """Return where 95 % of the samples of a share lie.

    Where all or none of so many images are right, no sample differs, and the interval
    is the exact one.

    Source:
        Clopper and Pearson, 1934, "The use of confidence or fiducial limits illustrated
        in the case of the binomial".
    """
    furthest = 0.025 ** (1 / images)
    if share == 0:
        return Interval(0.0, 1 - furthest)
    if share == 1:
        return Interval(furthest, 1.0)
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Interval(float(low), min(float(high), 1.0))  # fractions do not add up to 1


def accuracy(right: NDArray[np.bool_], counts: Counts) -> Shares:
    """Return the share that is right; not a number in a sample without images."""
    return _divided(counts @ right, counts.sum(axis=1))


def balanced_accuracy(answers: Labels, labels: Labels, counts: Counts) -> Shares:
    """Return the mean, over the classes that occur, of the share that is right."""
    right = answers == labels
    of_classes = [
        accuracy(right[labels == c], counts[:, labels == c]) for c in np.unique(labels)
    ]
    balanced: Shares = np.nanmean(of_classes, axis=0)
    return balanced


def macro_auc(logits: Logits, labels: Labels, counts: Counts) -> Shares:
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
        order = np.argsort(likely[:, number], kind="stable")
        ranked = likely[order, number]
        # Images of the same probability share a rank.
        first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
        is_member = (labels == number)[order]
        members, others = (
            np.add.reduceat(counts[:, order] * chosen, first, axis=1)
            for chosen in (is_member, ~is_member)
        )
        below = np.cumsum(others, axis=1) - others / 2
        area = _divided(
            (members * below).sum(axis=1), members.sum(axis=1) * others.sum(axis=1)
        )
        areas.append(np.maximum(area, 1 - area))
    known = np.array(areas)
    # Where all images are of one class there is nothing to rank.
    known[:, np.isnan(known).all(axis=0)] = 0.5
    macro: Shares = np.nanmean(known, axis=0)
    return macro


def relabelled_accuracy(
    answers: Labels, labels: Labels, classes: int, counts: Counts
) -> Shares:
    """Return the accuracy under the best one-to-one renaming of the answers."""
    pairs = np.zeros((len(labels), classes * classes))
    pairs[np.arange(len(labels)), answers * classes + labels] = 1
    confusions = (counts @ pairs).reshape(-1, classes, classes)
    right = [table[linear_sum_assignment(-table)].sum() for table in confusions]
    return _divided(np.array(right), counts.sum(axis=1))


def _estimate(shares: Shares, images: int) -> tuple[float, Interval]:
    """Return the figure of so many images themselves, and its interval."""
    share = float(shares[0])
    return share, interval(share, shares[1:], images)


def _divided(a: NDArray[np.float64], b: NDArray[np.float64]) -> Shares:
    shares: Shares = np.divide(a, b, out=np.full(len(b), np.nan), where=b > 0)
    return shares
