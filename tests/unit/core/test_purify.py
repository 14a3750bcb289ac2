"""A purifier does what its name says, to every picture alike, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from miadmark_core.errors import WeightsError
from miadmark_core.evaluation.denoisers import (
    STRENGTHS,
    decoded,
    diffused,
    trained_denoiser,
    trained_diffusion,
)
from miadmark_core.evaluation.purify import CLASSICAL, Pixels, Purifier
from miadmark_core.training.denoisers import (
    Autoencoder,
    DenoiserPlan,
    NoisePredictor,
    autoencoder_loss,
    diffusion_loss,
    train_denoiser,
)

if TYPE_CHECKING:
    from miadmark_core.training.denoisers import Objective

BY_NAME = {purifier.name: purifier for purifier in CLASSICAL}
CPU = torch.device("cpu")
SMOOTHING = [
    *("gaussian-0.7", "gaussian-1.4", "median-3", "median-5", "bilateral"),
    *("non-local-means", "total-variation-0.05", "total-variation-0.1"),
    *("down-up-50", "down-up-75", "wavelet"),
]


def smooth(rows: int = 64, columns: int = 80) -> Pixels:
    """A grey picture and a coloured one, without edges."""
    down, right = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    grey = 60 + 120 * np.sin(2 * down + right) ** 2
    coloured = np.stack([grey, 40 + 150 * right, 220 - 100 * down], axis=-1)
    return np.stack([grey[..., np.newaxis].repeat(3, -1), coloured]).astype(np.uint8)


def noisy(pixels: Pixels, levels: float = 8) -> Pixels:
    """The same with noise; grey stays grey."""
    random = np.random.default_rng(5)
    noise = random.normal(0, levels, pixels.shape)
    noise[0] = noise[0, ..., :1]
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def rms(a: Pixels, b: Pixels) -> float:
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def untrained() -> list[Purifier]:
    """The learned ones before they learned: shapes hold all the same."""

    def one(change: Callable[..., Pixels]) -> Callable[[Pixels], Pixels]:
        return lambda pixels: np.stack([change(picture) for picture in pixels])

    torch.manual_seed(1)
    encoder, predictor = Autoencoder(1).eval(), NoisePredictor(3).eval()
    torch.nn.init.normal_(encoder.body.final_conv.bias)
    return [
        Purifier("autoencoder", one(lambda p: decoded(encoder, p))),
        Purifier("diffusion", one(lambda p: diffused(predictor, p, steps=50))),
    ]


@pytest.mark.parametrize("purifier", CLASSICAL, ids=lambda p: p.name)
def test_a_purifier_keeps_shape_type_and_grey(purifier: Purifier) -> None:
    pixels = noisy(smooth())
    before = pixels.copy()
    purified = purifier.apply(pixels)
    assert (purified.shape, purified.dtype) == (pixels.shape, pixels.dtype)
    assert np.ptp(purified[0], axis=-1).max() == 0
    assert np.ptp(purified[1], axis=-1).max() > 0
    np.testing.assert_array_equal(pixels, before)
    changed = [rms(*pair) > 0 for pair in zip(purified, pixels, strict=True)]
    assert changed == [not purifier.name.startswith("chroma"), True]


@pytest.mark.parametrize("purifier", [*CLASSICAL, *untrained()], ids=lambda p: p.name)
def test_a_picture_is_purified_alike_in_any_company(purifier: Purifier) -> None:
    pixels = noisy(smooth())
    backwards = purifier.apply(pixels[::-1].copy())[::-1]
    np.testing.assert_array_equal(purifier.apply(pixels), backwards)
    np.testing.assert_array_equal(purifier.apply(pixels[1:]), backwards[1:])


@pytest.mark.parametrize("name", SMOOTHING)
def test_smoothing_takes_noise_off(name: str) -> None:
    clean = smooth()
    for one in (0, 1):
        pair = clean[one : one + 1], noisy(clean)[one : one + 1]
        assert rms(pair[0], BY_NAME[name].apply(pair[1])) < 0.75 * rms(*pair)


def test_lower_jpeg_quality_costs_more() -> None:
    pixels = noisy(smooth())[:1]  # of a coloured one all qualities blur the colour
    errors = [rms(pixels, BY_NAME[f"jpeg-{q}"].apply(pixels)) for q in (95, 75, 50, 30)]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 2


@pytest.mark.parametrize("kind", ["gaussian-0.7 gaussian-1.4", "median-3 median-5"])
def test_the_stronger_of_a_kind_leaves_less_noise(kind: str) -> None:
    clean = np.full((2, 64, 80, 3), 128, np.uint8)
    mild, strong = (BY_NAME[name].apply(noisy(clean)) for name in kind.split())
    assert rms(strong, clean) < 0.8 * rms(mild, clean)


@pytest.mark.parametrize("bits", [3, 4])
def test_bit_depth_leaves_so_many_levels(bits: int) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    levels = np.unique(BY_NAME[f"bit-depth-{bits}"].apply(ramp))
    assert len(levels) == 2**bits
    assert (levels[0], levels[-1]) == (0, 255)


def test_edges_survive_the_bilateral_filter_but_not_the_gaussian() -> None:
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    pixels[:, :, 16:] = 200
    assert rms(pixels, BY_NAME["bilateral"].apply(pixels)) < 1
    assert rms(pixels, BY_NAME["gaussian-1.4"].apply(pixels)) > 10


def test_a_crop_loses_the_margin_and_keeps_the_middle() -> None:
    pixels = np.full((1, 100, 60, 3), 200, np.uint8)
    pixels[:, 4:-4, 2:-2] = 50
    pixels[:, 49:51, 29:31] = 90
    cropped = BY_NAME["crop-90"].apply(pixels)
    assert cropped[:, 2:-2, 2:-2].max() < 100
    assert cropped[0, 49:51, 29:31].min() > 80


def test_clahe_raises_contrast() -> None:
    pixels = 100 + smooth() // 10
    assert BY_NAME["clahe"].apply(pixels)[0].std() > 1.5 * pixels[0].std()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 96), (50, 41)], ids=["fits", "is padded"])
def test_a_network_that_takes_nothing_off_gives_the_picture_back(
    channels: int, size: tuple[int, int]
) -> None:
    network = Autoencoder(channels).eval()
    for picture in (smooth(*size)[0, ..., 0], smooth(*size)[1]):
        np.testing.assert_array_equal(decoded(network, picture), picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_further_into_noise_is_further_from_the_picture(channels: int) -> None:
    torch.manual_seed(0)
    network = NoisePredictor(channels).eval()
    pictures = smooth(32, 48)
    for picture in (pictures[0, ..., 0], pictures[1]):
        results = [diffused(network, picture, steps=steps) for steps in STRENGTHS]
        assert {result.shape for result in results} == {picture.shape}
        errors = [rms(picture, result) for result in results]
        assert errors == sorted(errors)
        assert 0 < errors[0] < errors[-1]


def patches() -> np.ndarray:
    """Small clean pictures, ``(images, 1, rows, columns)``."""
    return smooth(32, 32).transpose(0, 3, 1, 2).reshape(-1, 1, 32, 32).repeat(8, 0)


@pytest.mark.parametrize(
    ("make", "objective", "share"),
    [(Autoencoder, autoencoder_loss, 0.85), (NoisePredictor, diffusion_loss, 0.93)],
    ids=["autoencoder", "diffusion"],
)
def test_training_learns(
    make: type[Autoencoder | NoisePredictor],
    objective: Objective[Autoencoder | NoisePredictor],
    share: float,
    tmp_path: Path,
) -> None:
    """Without learning, the first loss is the noise itself, give or take a twentieth."""
    plan = DenoiserPlan(pictures=6 * 48, learning_rate=3e-3, batch=6)
    lines: list[str] = []
    torch.manual_seed(0)
    train_denoiser(
        make(1), objective, patches(), plan, tmp_path / "checkpoint", lines.append
    )
    losses = [float(line.partition("loss ")[2]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < share * losses[0]


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    plan = DenoiserPlan(pictures=3 * 48, learning_rate=3e-3, batch=12)

    class StoppedError(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("epoch 2/3"):
            raise StoppedError

    def trained(name: str, report: Callable[[str], None]) -> dict[str, torch.Tensor]:
        torch.manual_seed(plan.seed)
        network = Autoencoder(1)
        train_denoiser(
            network, autoencoder_loss, patches(), plan, tmp_path / name, report
        )
        return network.state_dict()

    at_once = trained("at once", lambda _: None)
    with pytest.raises(StoppedError):
        trained("in two", stop)
    said: list[str] = []
    in_two = trained("in two", said.append)
    assert len(said) == 1
    for name, value in at_once.items():
        assert torch.equal(value, in_two[name]), name


def test_what_was_learned_is_kept(tmp_path: Path) -> None:
    plan = DenoiserPlan(pictures=2, learning_rate=1e-3)
    planes = np.ascontiguousarray(smooth(224, 224)[..., :1].transpose(0, 3, 1, 2))
    said: list[str] = []
    first, again, others = (
        [
            trained_denoiser("smooth", lessons, tmp_path, CPU, said.append, plan),
            *trained_diffusion("smooth", lessons, tmp_path, CPU, said.append, plan),
        ]
        for lessons in (planes, planes, planes[..., ::-1].copy())
    )
    one = ["smooth-autoencoder", "epoch 1/1", "smooth-diffusion", "epoch 1/1"]
    assert [line.partition(" loss")[0] for line in said] == [*one, *one]
    pixels = noisy(smooth())
    for made, read, other in zip(first, again, others, strict=True):
        assert (made.name, made.version) == (read.name, read.version)
        assert made.version != other.version
        purified = made.apply(pixels)
        assert (purified.shape, purified.dtype) == (pixels.shape, pixels.dtype)
        assert np.ptp(purified[0], axis=-1).max() == 0
        np.testing.assert_array_equal(purified, read.apply(pixels))

    for weights in tmp_path.glob("smooth-autoencoder*.safetensors"):
        encoded = bytearray(weights.read_bytes())
        encoded[-1] ^= 1
        weights.write_bytes(encoded)
    with pytest.raises(WeightsError, match="is not the file"):
        trained_denoiser("smooth", planes, tmp_path, CPU, plan=plan)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    plan = DenoiserPlan(pictures=2, learning_rate=1e-3)
    planes = np.ascontiguousarray(smooth(224, 224)[..., :1].transpose(0, 3, 1, 2))
    trained_denoiser("smooth", planes, tmp_path, CPU, plan=plan)
    trained_diffusion("smooth", planes, tmp_path, CPU, plan=plan)
    for end in ("safetensors", "sha256"):
        (written,) = tmp_path.glob(f"smooth-autoencoder*.{end}")
        (place,) = tmp_path.glob(f"smooth-diffusion*.{end}")
        written.rename(place)
    with pytest.raises(WeightsError, match="does not fit"):
        trained_diffusion("smooth", planes, tmp_path, CPU, plan=plan)
