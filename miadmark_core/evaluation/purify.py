"""What is done to a marked picture in the hope that its mark goes away.

A purifier knows neither the mark nor the classifier that is asked afterwards. These are
the ones that need no training: compression, smoothing, quantisation, resampling and
contrast, from libraries that anyone has at hand. Each does the same to every picture,
whichever others come with it, and is a pure function of its pixels.

Strengths follow the mark. At 35 dB, the least that a mark may have, it is 4.5 grey levels
(root mean square); filters that ask how much noise there is are told nearly twice that.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from skimage import color, exposure, restoration

if TYPE_CHECKING:
    from collections.abc import Callable

Pixels = NDArray[np.uint8]
"""RGB pictures, ``(images, rows, columns, 3)``; a grey one has three equal samples."""

Picture = NDArray[np.uint8]
"""One of them: ``(rows, columns, 3)``, or ``(rows, columns)`` where it is grey."""

_NOISE: Final = 8 / 255
"""What filters are told of the noise: its standard deviation, of pictures in 0..1."""


class Purifier(NamedTuple):
    """A name for tables, and what it stands for."""

    name: str
    apply: Callable[[Pixels], Pixels]
    """Shape and type stay; grey stays grey; the argument is not modified."""
    version: str = ""
    """Of what it has learned, if anything."""


def is_grey(picture: Picture) -> bool:
    """Say whether all three samples of each pixel are equal; ``(rows, columns, 3)``."""
    first = picture[..., :1]
    return bool((picture == first).all())


def one_by_one(change: Callable[[Picture], Picture], pixels: Pixels) -> Pixels:
    """Return each picture changed; of a grey one only one sample a pixel is worked on."""
    changed = np.empty_like(pixels)
    for index, picture in enumerate(pixels):
        if is_grey(picture):
            changed[index] = change(picture[..., 0])[..., np.newaxis]
        else:
            changed[index] = change(picture)
    return changed


def jpeg(picture: Picture, *, quality: int) -> Picture:
    """Return the picture compressed and decompressed; colour at half the resolution.

    Source:
        Dziugaite et al., 2016, arXiv:1608.00853; Pillow's libjpeg.
    """
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            return np.array(decoded)


def gaussian(picture: Picture, *, sigma: float) -> Picture:
    """Return the picture blurred; ``sigma`` in pixels.

    Source:
        scipy's ``gaussian_filter``.
    """
    blurred = ndimage.gaussian_filter(_floats(picture), sigma, axes=(0, 1))
    return _bytes(blurred)


def median(picture: Picture, *, side: int) -> Picture:
    """Return the median of the ``side`` x ``side`` samples around each.

    Source:
        Xu et al., 2018, arXiv:1704.01155 (feature squeezing); Pillow's median filter.
    """
    return np.array(Image.fromarray(picture).filter(ImageFilter.MedianFilter(side)))


def bilateral(picture: Picture) -> Picture:
    """Return the mean of near samples that are alike: blurred, but not over edges.

    Source:
        Tomasi and Manduchi, 1998, ICCV; scikit-image, 5 x 5 samples.
    """
    smoothed = restoration.denoise_bilateral(
        _floats(picture),
        win_size=5,
        sigma_color=3 * _NOISE,
        sigma_spatial=1.5,
        channel_axis=_channels(picture),
    )
    return _bytes(smoothed)


def non_local_means(picture: Picture) -> Picture:
    """Return the mean of samples whose 5 x 5 surroundings are alike.

    Source:
        Buades et al., 2005, CVPR; Darbon et al., 2008, ISBI; scikit-image, with the
        cut-off that it recommends. Looking further than 3 pixels around costs the square
        of the distance.
    """
    smoothed = restoration.denoise_nl_means(
        _floats(picture),
        patch_size=5,
        patch_distance=3,
        h=0.8 * _NOISE,
        sigma=_NOISE,
        fast_mode=True,
        channel_axis=_channels(picture),
    )
    return _bytes(smoothed)


def total_variation(picture: Picture, *, weight: float) -> Picture:
    """Return a picture near this one that varies less; the more so, the more ``weight``.

    Source:
        Chambolle, 2004, J. Math. Imaging Vis. 20; scikit-image. Against adversarial
        pictures: Guo et al., 2018, arXiv:1711.00117.
    """
    smoothed = restoration.denoise_tv_chambolle(  # type: ignore[no-untyped-call]
        _floats(picture), weight=weight, channel_axis=_channels(picture)
    )
    return _bytes(smoothed)


def bit_depth(picture: Picture, *, bits: int) -> Picture:
    """Return the picture in ``2 ** bits`` levels, spread over the whole range again.

    Source:
        Xu et al., 2018, arXiv:1704.01155 (feature squeezing).
    """
    steps = 2**bits - 1
    return _bytes(np.rint(_floats(picture) * steps) / steps)


def down_up(picture: Picture, *, scale: float) -> Picture:
    """Return the picture made smaller by ``scale``, antialiased, and large again.

    Source:
        Pillow's bilinear and bicubic resampling.
    """
    rows, columns = picture.shape[:2]
    small = Image.fromarray(picture).resize(
        (round(columns * scale), round(rows * scale)), Image.Resampling.BILINEAR
    )
    return np.array(small.resize((columns, rows), Image.Resampling.BICUBIC))


def crop(picture: Picture, *, share: float) -> Picture:
    """Return the middle ``share`` of rows and columns, as large as the whole was.

    Source:
        Guo et al., 2018, arXiv:1711.00117, without their chance; Pillow.
    """
    rows, columns = picture.shape[:2]
    margin = (1 - share) / 2
    box = (
        columns * margin,
        rows * margin,
        columns * (1 - margin),
        rows * (1 - margin),
    )
    whole = Image.fromarray(picture)
    return np.array(whole.resize((columns, rows), Image.Resampling.BICUBIC, box))


def clahe(picture: Picture) -> Picture:
    """Return the picture with its contrast evened out tile by tile, within limits.

    Source:
        Zuiderveld, 1994, Graphics Gems IV, VIII.5; scikit-image, 8 x 8 tiles, of a
        coloured picture the value (HSV) only.
    """
    return _bytes(exposure.equalize_adapthist(picture, clip_limit=0.01))


def wavelet(picture: Picture) -> Picture:
    """Return the picture with its small wavelet coefficients shrunk, band by band.

    Source:
        Chang et al., 2000, IEEE TIP 9 (BayesShrink); scikit-image over PyWavelets.
        Against adversarial pictures: Prakash et al., 2018, arXiv:1801.08926.
    """
    channels = _channels(picture)
    smoothed = restoration.denoise_wavelet(
        _floats(picture),
        sigma=_NOISE,
        wavelet="db2",
        method="BayesShrink",
        mode="soft",
        convert2ycbcr=channels is not None,
        channel_axis=channels,
    )
    return _bytes(smoothed)


def chroma_blur(picture: Picture, *, sigma: float) -> Picture:
    """Return the picture with its colours blurred, its brightness as it was.

    ``sigma`` is in pixels. It costs people little, and a mark that lies in the colours
    most of what it is; a grey picture has none and stays as it is.

    Source:
        scikit-image's YCbCr (ITU-R BT.601); scipy's ``gaussian_filter``.
    """
    if picture.ndim == 2:
        return picture
    parts = color.rgb2ycbcr(picture)
    parts[..., 1:] = ndimage.gaussian_filter(parts[..., 1:], sigma, axes=(0, 1))
    return _bytes(color.ycbcr2rgb(parts))


def _purifier(name: str, change: Callable[[Picture], Picture]) -> Purifier:
    # Partial functions, unlike nested ones, can be sent to another process.
    return Purifier(name, partial(one_by_one, change))


CLASSICAL: Final = (
    *(_purifier(f"jpeg-{q}", partial(jpeg, quality=q)) for q in (30, 50, 75, 95)),
    _purifier("gaussian-0.7", partial(gaussian, sigma=0.7)),
    _purifier("gaussian-1.4", partial(gaussian, sigma=1.4)),
    _purifier("median-3", partial(median, side=3)),
    _purifier("median-5", partial(median, side=5)),
    _purifier("bilateral", bilateral),
    _purifier("non-local-means", non_local_means),
    _purifier("total-variation-0.05", partial(total_variation, weight=0.05)),
    _purifier("total-variation-0.1", partial(total_variation, weight=0.1)),
    _purifier("bit-depth-4", partial(bit_depth, bits=4)),
    _purifier("bit-depth-3", partial(bit_depth, bits=3)),
    _purifier("down-up-50", partial(down_up, scale=0.5)),
    _purifier("down-up-75", partial(down_up, scale=0.75)),
    _purifier("crop-90", partial(crop, share=0.9)),
    _purifier("clahe", clahe),
    _purifier("wavelet", wavelet),
    _purifier("chroma-3", partial(chroma_blur, sigma=3)),
)
"""Those that need no training, from the mildest of a kind to the strongest."""


def _floats(picture: Picture) -> NDArray[np.float32]:
    return picture.astype(np.float32) / np.float32(255)


def _bytes(picture: NDArray[np.floating[Any]]) -> Picture:
    levels: Picture = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return levels


def _channels(picture: Picture) -> int | None:
    return -1 if picture.ndim == 3 else None
