"""How well marks mislead: the same images clean, marked and with a random mark.

*White box*: the networks that the search looked through. *Black box*: networks of another
family, trained on other images, which the search has never seen. *Control*: a random
mark of the same PSNR as the real one, image by image; whatever it costs a classifier, any
noise would.

The search is a black box here too: what it makes of images is an argument.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from miadmark_core.mark import MarkGrid, amplitude_for
from miadmark_core.training.classifier import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from miadmark_core.search.networks import Classifier
    from miadmark_core.training.labelled_images import LabelledImages

    Pixels = NDArray[np.uint8]

SCHEMA: Final = 1
_RESAMPLES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """One classifier that images are shown to."""

    name: str
    condition: str
    """``white box`` or ``black box``."""
    network: Classifier
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one classifier makes of one set of images. Shares are 0..1."""

    data_set: str
    judge: str
    condition: str
    images: int
    clean: float
    marked: float
    marked_interval: tuple[float, float]
    """95 %, by resampling images."""
    marked_of_right: float
    """Of the images that it gets right when they are clean."""
    marked_balanced: float
    """The mean over the classes."""
    control: float
    majority: float
    """What always naming the commonest class scores."""


def grey(images: LabelledImages) -> Pixels:
    """Return the images as one sample a pixel, ``(images, rows, columns)``.

    Source:
        ITU-R BT.601 luma, as grey JPEG files are decoded.
    """
    weights = np.array([0.299, 0.587, 0.114])
    luma: NDArray[np.float64] = images.pixels @ weights
    return np.rint(luma).astype(np.uint8)


def control(clean: Pixels, marked: Pixels, seed: int) -> Pixels:
    """Return each clean image with a random mark of the PSNR that its marked one has.

    The random mark has the grid and goes through the arithmetic of a real one.
    """
    random = np.random.default_rng(seed)
    results = np.empty_like(clean)
    for index, (image, other) in enumerate(zip(clean, marked, strict=True)):
        wanted = _rms(image, other)
        steps = np.clip(random.normal(0, 48, (112, 112)), -127, 127).astype(np.int8)
        low, high = 1, 64
        while low < high:  # the peak, in quarters of a grey level, that comes closest
            middle = (low + high) // 2
            if _rms(image, _added(image, steps, middle)) < wanted:
                low = middle + 1
            else:
                high = middle
        results[index] = _added(image, steps, low)
    return results


def judged(
    judge: Judge,
    images: LabelledImages,
    *,
    clean: Pixels,
    marked: Pixels,
    controls: Pixels,
    seed: int,
) -> Row:
    """Return what ``judge`` makes of the images; ``(images, rows, columns)`` each."""
    labels = images.labels
    answers = {
        name: predict(judge.network, _rgb(pixels), judge.size).argmax(dim=1).numpy()
        for name, pixels in (
            ("clean", clean),
            ("marked", marked),
            ("control", controls),
        )
    }
    right = answers["marked"] == labels
    was_right = answers["clean"] == labels
    random = np.random.default_rng(seed)
    samples = random.integers(0, len(labels), (_RESAMPLES, len(labels)))
    low, high = np.percentile(right[samples].mean(axis=1), [2.5, 97.5])
    counts = np.bincount(labels)
    return Row(
        data_set=images.name,
        judge=judge.name,
        condition=judge.condition,
        images=len(labels),
        clean=float(was_right.mean()),
        marked=float(right.mean()),
        marked_interval=(float(low), float(high)),
        marked_of_right=float(right[was_right].mean()),
        marked_balanced=float(
            np.mean([right[labels == c].mean() for c in np.unique(labels)])
        ),
        control=float((answers["control"] == labels).mean()),
        majority=float(counts.max() / counts.sum()),
    )


def results(
    rows: list[Row],
    quality: Mapping[str, Mapping[str, float]],
    round_to: Callable[[float], float] = lambda x: round(x, 4),
) -> dict[str, Any]:
    """Return what ``results.json`` holds."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return round_to(value)
        return [rounded(v) for v in value] if isinstance(value, tuple) else value

    return {
        "schema": SCHEMA,
        "rows": [{k: rounded(v) for k, v in asdict(row).items()} for row in rows],
        "quality": {
            name: {k: rounded(v) for k, v in values.items()}
            for name, values in quality.items()
        },
    }


def _rgb(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[..., np.newaxis], 3, axis=-1)


def _rms(a: Pixels, b: Pixels) -> float:
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def _added(image: Pixels, steps: NDArray[np.int8], quarters: int) -> Pixels:
    grid = MarkGrid(steps, max(amplitude_for(16) * quarters // 64, 1))
    added: Pixels = np.clip(image + grid.values(*image.shape), 0, 255).astype(np.uint8)
    return added
