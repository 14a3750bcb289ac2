"""Figures that do not flatter a mark."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from miadmark_core.evaluation.scores import (
    Intervals,
    balanced_accuracy,
    each_once,
    macro_auc,
    relabelled_accuracy,
    resampled,
    score,
)


def logits_for(answers: np.ndarray, classes: int) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[answers] * 4
    return logits


def test_always_wrong_on_two_classes_is_a_perfect_model_upside_down() -> None:
    labels = np.array([0, 1] * 20)
    scores = score(logits_for(1 - labels, 2), labels, np.ones(40, bool), seed=0)
    assert scores.top1 == 0
    assert scores.relabelled == 1
    assert scores.auc == 1


def test_naming_one_class_only_scores_its_share_and_no_more() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    scores = score(
        logits_for(np.zeros(40, np.int64), 2), labels, np.ones(40, bool), seed=0
    )
    assert (scores.top1, scores.balanced, scores.auc) == (0.75, 0.5, 0.5)


@given(st.data())
def test_scores_stay_in_their_ranges(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 5))
    count = data.draw(st.integers(1, 40))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)).astype(np.float32)
    scores = score(logits, labels, labels == logits.argmax(axis=1), seed=1)
    for name in ("top1", "balanced", "relabelled"):
        low, high = getattr(scores.intervals, name)
        assert 0 <= low <= high <= 1
    assert scores.intervals.top1.low <= scores.top1 <= scores.intervals.top1.high
    assert 0.5 <= scores.auc <= 1
    assert scores.top1 <= scores.relabelled <= 1
    assert 0 <= scores.balanced <= 1


def test_renaming_is_one_to_one() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    # Only two answers are ever given, so only two classes can be named.
    assert relabelled_accuracy(
        np.array([1, 1, 0, 0, 0, 0]), labels, 3, each_once(6)
    ) == [4 / 6]


def test_balanced_accuracy_counts_each_class_once() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert balanced_accuracy(np.zeros(100, np.int64), labels, each_once(100)) == [0.5]


def test_the_area_is_one_where_probabilities_separate_the_classes() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert macro_auc(logits_for(labels, 3), labels, each_once(6)) == [1]


def test_more_images_make_a_narrower_interval() -> None:
    def intervals(count: int) -> Intervals:
        labels = np.arange(count) % 3
        answers = np.where(np.arange(count) % 2 == 0, labels, (labels + 1) % 3)
        logits = logits_for(answers, 3)
        return score(logits, labels, np.ones(count, bool), seed=0).intervals

    wide, narrow = intervals(30), intervals(3000)
    for name in ("top1", "top1_of_right", "balanced", "auc"):
        few, many = getattr(wide, name), getattr(narrow, name)
        assert few.high - few.low > 5 * (many.high - many.low)
    assert narrow.top1 == pytest.approx((0.5, 0.5), abs=0.03)


def test_a_resampled_figure_is_the_figure_of_the_sample() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, 30)
    # Whole numbers, so that many images share a rank.
    logits = random.integers(0, 3, (30, 3)).astype(np.float32)
    answers = logits.argmax(axis=1)
    counts = random.integers(0, 3, (1, 30)).astype(float)
    drawn = np.repeat(np.arange(30), counts[0].astype(int))
    once = each_once(len(drawn))
    assert macro_auc(logits, labels, counts) == pytest.approx(
        macro_auc(logits[drawn], labels[drawn], once)
    )
    assert balanced_accuracy(answers, labels, counts) == pytest.approx(
        balanced_accuracy(answers[drawn], labels[drawn], once)
    )
    assert relabelled_accuracy(answers, labels, 3, counts) == pytest.approx(
        relabelled_accuracy(answers[drawn], labels[drawn], 3, once)
    )


@pytest.mark.parametrize("of_a_class", [4, 40])
def test_an_interval_covers_what_it_is_of_and_is_never_empty(of_a_class: int) -> None:
    random = np.random.default_rng(6)
    covered = 0
    for number in range(200):
        labels = np.repeat(np.arange(8), of_a_class)
        is_right = random.random(len(labels)) < 0.7
        answers = np.where(is_right, labels, (labels + 1) % 8)
        found = score(logits_for(answers, 8), labels, is_right, seed=number)
        covered += found.intervals.top1.low <= 0.7 <= found.intervals.top1.high
        # All that was right still is.
        assert found.top1_of_right == 1
        assert found.intervals.top1_of_right is not None
        assert found.intervals.top1_of_right.low < 0.99
    assert 178 <= covered < 200


def test_a_sample_keeps_every_class_and_its_weight() -> None:
    labels = np.array([0] * 20 + [1])
    counts = resampled(labels, seed=3)
    assert (counts[:, -1] == 1).all()
    np.testing.assert_allclose(counts.sum(axis=1), 21)
    # As uncertain as twenty images are.
    assert counts[:, 0].std() == pytest.approx(1, abs=0.1)
