"""A folder of pictures as a site has it: without labels, or with a folder for each class.

Where nobody labelled anything, groups of pictures that an ImageNet network finds alike
stand for classes: what tells the groups apart is what a diagnostic network would start
from. A fifth of the pictures is set aside to be measured on, by their content, so that
copies stay together; pictures of one patient may not.

How a file becomes a picture is an argument; nothing here knows DICOM.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from scipy.cluster.vq import kmeans2, vq

from miadmark_core.errors import DataSetError
from miadmark_core.search.surrogate import resized
from miadmark_core.training.labelled_images import LabelledImages, fitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from miadmark_core.search.networks import Classifier

    Decode = Callable[[Path], "Image.Image | None"]
    """Returns the picture in a file; None if there is none."""

LEAST: Final = 40
"""Pictures that a surrogate is trained on, at least."""

LEAST_A_CLASS: Final = 3
"""Of these, of each class."""

GROUPS: Final = 8
"""Of pictures without labels, at most."""

A_GROUP: Final = 20
"""Pictures in a group, on average, at least."""

_ASIDE: Final = 5
"""Every so many pictures one is set aside."""

_AT_ONCE: Final = 32


class SiteImages(NamedTuple):
    """Pictures to train on, and those set aside."""

    taught: LabelledImages
    aside: LabelledImages


def read_picture(path: Path) -> Image.Image | None:
    """Return the picture in a file that is a PNG, a JPEG, a TIFF or the like."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None


def read_site_images(
    folder: Path,
    encoder: Classifier,
    size: int,
    decode: Decode = read_picture,
    *,
    is_labelled: bool,
) -> SiteImages:
    """Return the pictures of a folder and its folders.

    Args:
        folder: Where they lie.
        encoder: Tells unlabelled pictures apart, in evaluation mode.
        size: Rows and columns that it is shown.
        decode: How a file becomes a picture.
        is_labelled: Whether the folders in ``folder`` are the classes. Their names are
            not kept: they might be patients'.

    Raises:
        DataSetError: There are too few pictures, or fewer than two classes.
    """
    pixels, places = [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if (picture := decode(path)) is not None:
            pixels.append(fitted(picture))
            places.append(path.relative_to(folder).parts)
    if len(pixels) < LEAST:
        raise DataSetError(
            f"{folder} holds {len(pixels)} pictures",
            hint=f"At least {LEAST} are needed to train on.",
        )
    stack = np.stack(pixels)
    if is_labelled:
        first = [place[0] if len(place) > 1 else "" for place in places]
        _, labels = np.unique(first, return_inverse=True)
    else:
        labels = _groups(stack, encoder, size)
    aside = np.array([_is_aside(image) for image in stack])
    counts = np.bincount(labels[~aside])
    if len(counts) < 2 or counts.min() < LEAST_A_CLASS or not aside.any():
        raise DataSetError(
            f"{folder} has too few pictures of a class, or too few classes",
            hint=f"At least two classes, and {LEAST_A_CLASS} pictures of each.",
        )
    kind = "class" if is_labelled else "group"
    classes = tuple(f"{kind} {number + 1}" for number in range(len(counts)))

    def chosen(which: NDArray[np.bool_]) -> LabelledImages:
        return LabelledImages(
            name=folder.resolve().name,
            classes=classes,
            pixels=stack[which],
            labels=labels[which].astype(np.int64),
        )

    return SiteImages(chosen(~aside), chosen(aside))


def _groups(
    pixels: NDArray[np.uint8], encoder: Classifier, size: int
) -> NDArray[np.int64]:
    """Return the number of each picture's group, by k-means over what an encoder sees.

    Source:
        Caron et al., 2018, arXiv:1807.05520 (deep clustering), one round.
    """
    seen = []
    with torch.no_grad():
        for start in range(0, len(pixels), _AT_ONCE):
            part = torch.from_numpy(pixels[start : start + _AT_ONCE])
            x = resized(part.permute(0, 3, 1, 2).float() / 255, size)
            seen.append(encoder.features(x).numpy())
    features = np.concatenate(seen).astype(np.float64)
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    groups = max(2, min(GROUPS, len(pixels) // A_GROUP))
    # Looking for groups at random places finds others each time; the seed is fixed.
    centres, found = kmeans2(
        features, groups, minit="++", seed=np.random.default_rng(0)
    )
    counts = np.bincount(found, minlength=groups)
    # Who is in a group too small to be learned joins the nearest that is not.
    is_kept = counts >= 2 * LEAST_A_CLASS
    if np.count_nonzero(is_kept) < 2:
        # All but a few look alike: halves along what they differ in most.
        _, _, directions = np.linalg.svd(features, full_matrices=False)
        along = features @ directions[0]
        return np.asarray(along > np.median(along), np.int64)
    nearest = np.flatnonzero(is_kept)[vq(features, centres[is_kept])[0]]
    _, labels = np.unique(np.where(is_kept[found], found, nearest), return_inverse=True)
    return np.asarray(labels, np.int64)


def _is_aside(image: NDArray[np.uint8]) -> bool:
    told = hashlib.sha256(image.tobytes()).digest()
    return int.from_bytes(told[:4], "big") % _ASIDE == 0
