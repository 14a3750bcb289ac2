"""A site's folder: with a folder for each class, or nothing but pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miadmark_core.errors import DataSetError
from miadmark_core.search.networks import EfficientNetLite
from miadmark_core.training.recipe import published
from miadmark_core.training.site_images import read_site_images


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite:
    network = EfficientNetLite(1)
    network.load_published(published("efficientnet-lite0"))
    return network.eval()


def pictures(kind: int, count: int) -> Iterator[Image.Image]:
    """Bright stripes, or dark dots: a network that starts from ImageNet sees which."""
    random = np.random.default_rng(kind)
    y, x = np.mgrid[:64, :64]
    for _ in range(count):
        phase, wave = random.random() * 6, 0.6 + 0.1 * random.random()
        stripes = 180 + 60 * np.sin(x * wave + phase)
        dots = 60 + 60 * (np.sin(x * wave + phase) * np.sin(y * wave) > 0.5)
        shown = stripes if kind else dots
        yield Image.fromarray(shown.astype(np.uint8))


def fill(folder: Path, kind: int, count: int = 30) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(kind, count)):
        picture.save(folder / f"{kind}-{number}.png")


def test_folders_are_classes(tmp_path: Path, encoder: EfficientNetLite) -> None:
    fill(tmp_path / "dots", 0)
    fill(tmp_path / "stripes", 1)
    (tmp_path / "dots" / "notes.txt").write_text("no picture")
    images = read_site_images(tmp_path, encoder, 96, is_labelled=True)
    # Their names might be patients'.
    assert images.taught.classes == ("class 1", "class 2")
    assert len(images.taught) + len(images.aside) == 60
    assert 3 <= len(images.aside) <= 25
    assert images.taught.pixels.shape[1:] == (224, 224, 3)
    bright = images.taught.pixels.mean(axis=(1, 2, 3)) > 120
    np.testing.assert_array_equal(bright, images.taught.labels == 1)


def test_without_labels_what_looks_alike_is_a_class(
    tmp_path: Path, encoder: EfficientNetLite
) -> None:
    fill(tmp_path, 0)
    fill(tmp_path, 1)
    images = read_site_images(tmp_path, encoder, 96, is_labelled=False)
    bright = images.taught.pixels.mean(axis=(1, 2, 3)) > 120
    for group in range(len(images.taught.classes)):
        of_group = bright[images.taught.labels == group]
        assert of_group.all() or not of_group.any()
    again = read_site_images(tmp_path, encoder, 96, is_labelled=False)
    np.testing.assert_array_equal(images.taught.labels, again.taught.labels)


def test_too_few_pictures_are_refused(
    tmp_path: Path, encoder: EfficientNetLite
) -> None:
    fill(tmp_path, 0, count=5)
    with pytest.raises(DataSetError, match="5 pictures"):
        read_site_images(tmp_path, encoder, 96, is_labelled=False)
    fill(tmp_path, 1, count=60)
    # Labelled, and all in one folder.
    with pytest.raises(DataSetError, match="too few classes"):
        read_site_images(tmp_path, encoder, 96, is_labelled=True)


def test_pictures_that_all_look_alike_are_halved(
    tmp_path: Path, encoder: EfficientNetLite
) -> None:
    random = np.random.default_rng(4)
    for number in range(50):
        noise = random.integers(0, 255, (40, 40)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    images = read_site_images(tmp_path, encoder, 96, is_labelled=False)
    counts = np.bincount(images.taught.labels)
    assert len(counts) >= 2
    assert counts.min() >= 3
