"""Purifiers that are learned from clean pictures of the kind that was marked.

Whoever wants a mark off has pictures without one, which the search has never seen, and
which are not measured on. From them come an autoencoder and a small diffusion model; the
latter drowns a picture in some noise, and its mark with it, and then removes the noise.

Weights are kept as safetensors beside their digest, and trained only where they are not
there. Chance comes from the picture itself: the same picture is purified the same way,
whichever others come with it.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from miadmark_core.errors import WeightsError
from miadmark_core.evaluation.purify import Purifier, one_by_one
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.evaluation.store import digest
from miadmark_core.training import denoisers
from miadmark_core.training.classifier import pictures_digest
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from miadmark_core.evaluation.purify import Picture, Pixels
    from miadmark_core.training.denoisers import Objective


class Lessons(NamedTuple):
    """What a network is trained on."""

    channels: int
    """1 for grey pictures, 3 for colour."""
    digest: str
    """Stands for the pictures."""
    pictures: Callable[[], Pixels]
    """Returns them, ``(images, planes, rows, columns)``; asked only if need be."""


Network = TypeVar("Network", Autoencoder, LogoRemover, NoisePredictor)
Remover = TypeVar("Remover", Autoencoder, LogoRemover)

CODE: Final = code_digest([Path(__file__), Path(denoisers.__file__)])
"""Stands for how networks are trained here, and asked."""

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
    name: str,
    pictures: Pixels,
    out: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    plan: DenoiserPlan = AUTOENCODER_PLAN,
) -> Purifier:
    """Return the autoencoder for pictures of one kind.

    Args:
        name: Of the kind.
        pictures: What it is trained on, ``(images, 1 or 3, rows, columns)``.
        out: Where the weights are, or are written to. Made if it is not there.
        device: Where to train, and to purify.
        report: Called with a line of progress now and then.
        plan: How to train.

    Raises:
        WeightsError: What is in ``out`` is not what was written there.
    """
    network = trained_network(
        f"{name}-autoencoder",
        Autoencoder,
        autoencoder_loss,
        plan,
        Lessons(pictures.shape[1], pictures_digest(pictures), lambda: pictures),
        out,
        device,
        report,
    )
    return purifier_of("autoencoder", network)


def trained_diffusion(
    name: str,
    pictures: Pixels,
    out: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    plan: DenoiserPlan = DIFFUSION_PLAN,
) -> list[Purifier]:
    """Return diffusion purifiers of each strength; see :func:`trained_denoiser`.

    Each sample of a coloured picture is a picture of its own to them: the noise in three
    at once is more numbers than the network is wide, and it would learn nothing.
    """
    flat = pictures.reshape(-1, 1, *pictures.shape[-2:])
    network = trained_network(
        f"{name}-diffusion",
        NoisePredictor,
        diffusion_loss,
        plan,
        Lessons(1, pictures_digest(flat), lambda: flat),
        out,
        device,
        report,
    )
    return [
        Purifier(
            f"diffusion-{steps * 1000 // STEPS:03}",
            partial(one_by_one, partial(diffused, network, steps=steps)),
            _version(network),
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
    told = hashlib.sha256(picture.tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(told[:8], "big"))
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
    name: str,
    make: Callable[[int], Network],
    objective: Objective[Network],
    plan: DenoiserPlan,
    lessons: Lessons,
    out: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
) -> Network:
    """Return a network from its file, which is written first if it is not there.

    Args:
        name: The start of the file's name; the rest stands for plan, lessons and code.
        make: Makes the network for so many channels.
        objective: What its training makes small.
        plan: How to train.
        lessons: What on.
        out: Where the file is; ``checkpoints`` in it keeps what an interrupted training
            has reached.
        device: Where to train, and where the network is to be.
        report: Called with a line of progress now and then.

    Raises:
        WeightsError: What is there is not what was written there.
    """
    told = digest((plan, lessons.digest, make.__name__, objective.__name__, CODE))
    path = out / f"{name}-{told}.safetensors"
    if not path.exists():
        checkpoint = path.parent / "checkpoints" / f"{path.stem}.pt"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(plan.seed)
        network = make(lessons.channels).to(device)
        report(name)
        train_denoiser(network, objective, lessons.pictures(), plan, checkpoint, report)
        _write(path, network)
    return _read(path, make).to(device)


def purifier_of(name: str, network: Remover) -> Purifier:
    """Return the purifier that is one pass through a network."""
    look = partial(one_by_one, partial(decoded, network))
    return Purifier(name, look, _version(network))


def _version(network: Network) -> str:
    """Return what stands for a network's weights and how it is asked."""
    weights = save({k: v.contiguous().cpu() for k, v in network.state_dict().items()})
    return f"{CODE} {hashlib.sha256(weights).hexdigest()}"


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _write(path: Path, network: Network) -> None:
    """Write weights and digest; the weights last, since they say that all is done."""
    state = {k: v.contiguous().cpu() for k, v in network.state_dict().items()}
    encoded = save(state)
    told = hashlib.sha256(encoded).hexdigest()
    _digest_of(path).write_text(f"{told}  {path.name}\n", "utf-8")
    aside = path.with_suffix(".part")
    aside.write_bytes(encoded)
    aside.replace(path)


def _read(path: Path, make: Callable[[int], Network]) -> Network:
    try:
        encoded = path.read_bytes()
        told = _digest_of(path).read_text("utf-8").split()[0]
    except (OSError, IndexError) as error:
        raise WeightsError(f"{path} or its digest cannot be read: {error}") from error
    hint = f"Remove {path.name}, and it is trained again."
    if hashlib.sha256(encoded).hexdigest() != told:
        raise WeightsError(f"{path} is not the file that its digest lists", hint=hint)
    try:
        state = load(encoded)
        network = make(int(state["channels"]))
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{path} does not fit its network", hint=hint) from error
    return network.eval().requires_grad_(requires_grad=False)
