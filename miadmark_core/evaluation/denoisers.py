"""Purifiers that are learned from clean pictures of the kind that was marked.

Whoever wants a mark off has pictures without one: those of the split ``victim``, which
the search has never seen, and which is not measured on. From them come an autoencoder and
a small diffusion model; the latter drowns a picture in some noise, and its mark with it,
and then removes the noise.

Weights are kept as safetensors beside their digest, and trained only where they are not
there. Chance comes from the picture itself: the same picture is purified the same way,
whichever others come with it.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from miadmark_core.errors import WeightsError
from miadmark_core.evaluation.purify import Purifier, is_grey, one_by_one
from miadmark_core.training.denoisers import (
    MULTIPLE,
    STEPS,
    Autoencoder,
    DenoiserPlan,
    LogoRemover,
    NoisePredictor,
    autoencoder_loss,
    diffusion_loss,
    schedule,
    train_denoiser,
)
from miadmark_core.training.labelled_images import read_split
from miadmark_core.training.recipe import CARDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from miadmark_core.evaluation.purify import Picture, Pixels
    from miadmark_core.training.denoisers import Objective


Network = TypeVar("Network", Autoencoder, LogoRemover, NoisePredictor)
Remover = TypeVar("Remover", Autoencoder, LogoRemover)

SPLIT: Final = "victim"
AUTOENCODER_PLAN: Final = DenoiserPlan(pictures=6_000, learning_rate=3e-3)
DIFFUSION_PLAN: Final = DenoiserPlan(pictures=12_000, learning_rate=2e-3)

STRENGTHS: Final = (25, 50, 100)
"""Steps, of ``STEPS``, to which pictures are drowned: 12, 22 and 43 grey levels of noise.

The last is as far as the network has learned. Names say them in thousandths:
``diffusion-025``.
"""

_STRIDE: Final = 25
"""Steps that are taken back at once."""


def trained_denoiser(
    folder: Path,
    out: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    plan: DenoiserPlan = AUTOENCODER_PLAN,
) -> Purifier:
    """Return the autoencoder for the pictures in ``folder``.

    Args:
        folder: A data set; see :mod:`~miadmark_core.training.labelled_images`.
        out: Where the weights are, or are written to. Made if it is not there.
        device: Where to train, and to purify.
        report: Called with a line of progress now and then.
        plan: How to train.

    Raises:
        DataSetError: The folder holds no such data set.
        WeightsError: What is in ``out`` is not what was written there.
    """
    pictures = split_pictures(folder)
    network = trained_network(
        out / f"{folder.name}-autoencoder.safetensors",
        Autoencoder,
        autoencoder_loss,
        plan,
        pictures.shape[1],
        lambda: pictures,
        device,
        report,
    )
    return purifier_of("autoencoder", network)


def trained_diffusion(
    folder: Path,
    out: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    plan: DenoiserPlan = DIFFUSION_PLAN,
) -> list[Purifier]:
    """Return diffusion purifiers of each strength; see :func:`trained_denoiser`."""
    pictures = split_pictures(folder)
    network = trained_network(
        out / f"{folder.name}-diffusion.safetensors",
        NoisePredictor,
        diffusion_loss,
        plan,
        pictures.shape[1],
        lambda: pictures,
        device,
        report,
    )
    return [
        Purifier(
            f"diffusion-{steps * 1000 // STEPS:03}",
            partial(one_by_one, partial(diffused, network, steps=steps)),
        )
        for steps in STRENGTHS
    ]


@torch.inference_mode()
def decoded(network: Autoencoder | LogoRemover, picture: Picture) -> Picture:
    """Return what the network makes of one picture.

    Source:
        Meng and Chen, 2017, arXiv:1705.09064 (MagNet's reformer).
    """
    return _picture(network(_planes(network, picture)), picture)


@torch.inference_mode()
def diffused(network: NoisePredictor, picture: Picture, *, steps: int) -> Picture:
    """Return one picture after ``steps`` steps into noise and back.

    Source:
        Nie et al., 2022, arXiv:2205.07460 (DiffPure), with few steps of Song et al.,
        2021, arXiv:2010.02502 (DDIM) on the way back.
    """
    planes = _planes(network, picture)
    digest = hashlib.sha256(picture.tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    noise = torch.randn(planes.shape, generator=generator).to(planes.device)
    way = schedule()
    way.set_timesteps(STEPS // _STRIDE)
    times = range(steps - 1, -1, -_STRIDE)
    at = torch.full((len(planes),), times[0], device=planes.device)
    planes = way.add_noise(original_samples=planes, noise=noise, timesteps=at)
    for time in times:
        predicted = network(planes, torch.full_like(at, time))
        planes, _ = way.step(predicted, time, planes)
    return _picture(planes, picture)


def _planes(
    network: Autoencoder | LogoRemover | NoisePredictor, picture: Picture
) -> Tensor:
    """Return a picture as the network takes it: in -1..1, sides a multiple.

    A network for grey pictures takes the samples of a coloured one as three pictures.

    Returns:
        ``(1, channels, ...)``, or ``(3, 1, ...)``.
    """
    channels = int(network.channels)
    samples = torch.from_numpy(np.atleast_3d(picture)).permute(2, 0, 1)
    samples = samples.to(network.channels.device).float() / 127.5 - 1
    rows, columns = samples.shape[-2:]
    padded = functional.pad(
        samples, (0, -columns % MULTIPLE, 0, -rows % MULTIPLE), mode="replicate"
    )
    if len(padded) < channels:
        padded = padded.expand(channels, -1, -1)
    return padded.reshape(-1, channels, *padded.shape[-2:])


def _picture(planes: Tensor, like: Picture) -> Picture:
    """Return what :func:`_planes` had made planes of: the inverse, rounded."""
    rows, columns = like.shape[:2]
    samples = planes.flatten(0, 1)[:, :rows, :columns]
    if like.ndim == 2:
        samples = samples.mean(dim=0, keepdim=True)
    levels = ((samples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture: Picture = levels.permute(1, 2, 0).cpu().numpy().reshape(like.shape)
    return picture


def trained_network(
    path: Path,
    make: Callable[[int], Network],
    objective: Objective[Network],
    plan: DenoiserPlan,
    channels: int,
    pictures: Callable[[], NDArray[np.uint8]],
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
) -> Network:
    """Return a network from its file, which is written first if it is not there.

    Args:
        path: Of the weights; ``checkpoints`` beside it keeps what an interrupted
            training has reached.
        make: Makes the network for so many channels.
        objective: What its training makes small.
        plan: How to train.
        channels: 1 for grey pictures, 3 for colour.
        pictures: Returns what it is trained on, ``(images, planes, rows, columns)``.
        device: Where to train, and where the network is to be.
        report: Called with a line of progress now and then.

    Raises:
        WeightsError: What is there is not what was written there.
    """
    if not path.exists():
        checkpoint = path.parent / "checkpoints" / f"{path.stem}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        network = make(channels).to(device)
        report(path.stem)
        train_denoiser(network, objective, pictures(), plan, checkpoint, report)
        _write(path, network)
    return _read(path, make).to(device)


def purifier_of(name: str, network: Remover) -> Purifier:
    """Return the purifier that is one pass through a network."""
    return Purifier(name, partial(one_by_one, partial(decoded, network)))


def split_pictures(folder: Path) -> NDArray[np.uint8]:
    """Return an attacker's clean pictures: one channel where the set is grey.

    Returns:
        ``(images, channels, rows, columns)``.
    """
    pixels = read_split(folder, SPLIT).pixels
    if not is_colour(folder.name, pixels):
        grey: Pixels = np.rint(pixels.mean(axis=-1)).astype(np.uint8)
        return grey[:, np.newaxis]
    return pixels.transpose(0, 3, 1, 2)


def is_colour(data_set: str, pixels: Pixels) -> bool:
    """Return whether a set is of colour pictures; of an unknown one, whether most are."""
    card = CARDS.get(data_set)
    if card is not None:
        return card.is_colour
    return sum(map(is_grey, pixels)) * 2 <= len(pixels)


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _write(path: Path, network: Network) -> None:
    """Write weights and digest; the weights last, since they say that all is done."""
    state = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
    encoded = save(state)
    digest = hashlib.sha256(encoded).hexdigest()
    _digest_of(path).write_text(f"{digest}  {path.name}\n", "utf-8")
    aside = path.with_suffix(".part")
    aside.write_bytes(encoded)
    aside.replace(path)


def _read(path: Path, make: Callable[[int], Network]) -> Network:
    try:
        encoded = path.read_bytes()
        digest = _digest_of(path).read_text("utf-8").split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path} or its digest cannot be read: {error}") from error
    hint = f"Remove {path.name}, and it is trained again."
    if hashlib.sha256(encoded).hexdigest() != digest:
        raise WeightsError(f"{path} is not the file that its digest lists", hint=hint)
    try:
        state = load(encoded)
        network = make(int(state["channels"]))
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit its network", hint=hint) from error
    return network.eval().requires_grad_(requires_grad=False)
