"""What the search sees a mark through: random, of the size asked for, differentiable."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from miadmark_core.search.codec import jpeg_like
from miadmark_core.search.transform import shuffled, transformed


def smooth(seed: int) -> torch.Tensor:
    coarse = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (96, 96), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_is_as_a_codec_makes_it(quality: int) -> None:
    picture = (255 * smooth(1)).round().to(torch.uint8)[0, 0].numpy()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), np.float32)
    ours = 255 * jpeg_like(torch.from_numpy(picture)[None, None].float() / 255, quality)
    assert np.abs(ours[0, 0].numpy() - decoded).mean() < 0.6
    assert (
        np.abs(picture - decoded).mean()
        > 2 * np.abs(ours[0, 0].numpy() - decoded).mean()
        or quality == 95
    )


def test_a_size_that_blocks_do_not_divide_comes_back_as_it_was() -> None:
    assert jpeg_like(torch.rand(2, 3, 30, 21), 50).shape == (2, 3, 30, 21)


def test_gradients_pass_through_every_change() -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        views = smooth(3).expand(2, 3, -1, -1).clone().requires_grad_()
        shown = transformed(views, generator, 64, is_coloured=True)
        assert shown.shape == (2, 3, 64, 64)
        assert shown.min() >= 0
        assert shown.max() <= 1
        (gradient,) = torch.autograd.grad(shown.square().sum(), views)
        assert gradient.abs().sum() > 0


def test_shuffled_blocks_are_the_same_pixels_elsewhere() -> None:
    views = torch.arange(3 * 40 * 40).reshape(1, 3, 40, 40).float()
    generator = torch.Generator().manual_seed(1)
    found = [shuffled(views, generator) for _ in range(8)]
    for other in found:
        assert torch.equal(other.flatten().sort().values, views.flatten())
    assert any(not torch.equal(other, views) for other in found)
