"""Train networks that take noise off pictures, on clean pictures of one kind.

An autoencoder, which removes noise in one pass, and the network of a small diffusion
model, which says what in a noisy picture is noise. The loop is that of
:mod:`~miadmark_core.training.classifier`: one learning-rate cycle, nothing selected, a
checkpoint after every epoch. Both are convolutional and see cut-outs while they learn,
a quarter of each picture, so that minutes on one core are enough.

Pictures are ``(batch, channels, rows, columns)``, float32 in -1..1; rows and columns are
multiples of 32. Nothing here knows what a mark is, or who wants it removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers.ddim import DDIMScheduler
from torch import Tensor, nn
from torch.nn import functional

from miadmark_core.training.classifier import (
    load_checkpoint,
    pictures_digest,
    save_checkpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

Network = TypeVar("Network", bound=nn.Module)

Objective: TypeAlias = "Callable[[Network, Tensor, torch.Generator], Tensor]"
"""A network, clean pictures and the source of chance to a loss."""

STEPS: Final = 1000
"""Of the whole way from a picture to noise; as in the paper on DDPM."""

HIGHEST_STEP: Final = 100
"""The network learns no further; there the noise has some 40 grey levels already."""

MULTIPLE: Final = 32
"""Rows and columns of what the networks are shown are multiples of this."""

_CUT_OUT: Final = 112
_STRONGEST_NOISE: Final = 20 / 127.5
_LONGEST_GRADIENT: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserPlan:
    """How long and how fast to train."""

    pictures: int
    """How many are shown in all, so that small sets take as long as large ones."""
    learning_rate: float
    """The highest of the cycle."""
    batch: int = 16
    weight_decay: float = 1e-4
    seed: int = 0
    """Of the first weights, the order of the pictures, cut-outs and noise."""

    def epochs(self, pictures: int) -> int:
        """Return how often each of ``pictures`` pictures is shown; at least once."""
        return max(1, round(self.pictures / pictures))


class Autoencoder(nn.Module):
    """A small U-Net that says what to take off a picture; noise strength unknown.

    Source:
        MONAI's ``BasicUNet``. It predicts the noise (Zhang et al., 2017,
        arXiv:1608.03981) and works on squares of 2 x 2 pixels (Zhang et al., 2018,
        arXiv:1710.04026).
    """

    SQUARE = 2
    channels: Tensor
    """How many it was made for; kept with the weights."""

    def __init__(self, channels: int) -> None:
        """Make one that takes nothing off, for grey (1) or coloured (3) pictures."""
        super().__init__()
        self.register_buffer("channels", torch.tensor(channels))
        samples = channels * self.SQUARE**2
        self.body = BasicUNet(
            spatial_dims=2,
            in_channels=samples,
            out_channels=samples,
            features=(16, 16, 32, 64, 64, 16),
            norm="batch",
        )
        # What is predicted at first would be far stronger than any noise to be removed.
        for parameter in self.body.final_conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the pictures without their noise, of the same shape."""
        squares = functional.pixel_unshuffle(pictures, self.SQUARE)
        noise: Tensor = functional.pixel_shuffle(self.body(squares), self.SQUARE)
        return pictures - noise


class LogoRemover(nn.Module):
    """A small U-Net that says where a visible mark is, and what lies under it.

    Source:
        MONAI's ``BasicUNet``. Mask and content apart, joined by the mask: Liu et al.,
        2021, "WDNet", and Liang et al., 2021, arXiv:2108.03581 (SLBR), without their
        second network that refines.
    """

    SQUARE = 2
    channels: Tensor
    """How many it was made for; kept with the weights."""

    def __init__(self, channels: int) -> None:
        """Make one with random weights, for grey (1) or coloured (3) pictures."""
        super().__init__()
        self.register_buffer("channels", torch.tensor(channels))
        square = self.SQUARE**2
        self.body = BasicUNet(
            spatial_dims=2,
            in_channels=channels * square,
            out_channels=(channels + 1) * square,
            features=(16, 16, 32, 64, 64, 16),
            norm="batch",
        )

    def decomposed(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pictures without their marks, and where these are, as logits."""
        squares = functional.pixel_unshuffle(pictures, self.SQUARE)
        said: Tensor = functional.pixel_shuffle(self.body(squares), self.SQUARE)
        change, where = said[:, :-1], said[:, -1:]
        return pictures + where.sigmoid() * change, where

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the pictures without their marks, of the same shape."""
        return self.decomposed(pictures)[0]


class NoisePredictor(nn.Module):
    """The network of a diffusion model: which noise was added on the way to a step.

    Source:
        Ho et al., 2020, arXiv:2006.11239; MONAI's ``DiffusionModelUNet``, on squares of
        4 x 4 pixels, without which it would take ten times as long.
    """

    SQUARE = 4
    channels: Tensor
    """How many it was made for; kept with the weights."""

    def __init__(self, channels: int) -> None:
        """Make one with random weights, for grey (1) or coloured (3) pictures."""
        super().__init__()
        self.register_buffer("channels", torch.tensor(channels))
        samples = channels * self.SQUARE**2
        self.body = DiffusionModelUNet(
            spatial_dims=2,
            in_channels=samples,
            out_channels=samples,
            channels=(32, 64, 96),
            num_res_blocks=1,
            attention_levels=(False, False, False),
            norm_num_groups=8,
            num_head_channels=16,
        )

    def forward(self, pictures: Tensor, steps: Tensor) -> Tensor:
        """Return the noise, standard normal, of the same shape.

        Args:
            pictures: Noisy ones.
            steps: How far on the way each is, ``(batch,)``, int64 below ``STEPS``.
        """
        squares = functional.pixel_unshuffle(pictures, self.SQUARE)
        noise: Tensor = self.body(squares, steps)
        return functional.pixel_shuffle(noise, self.SQUARE)


def schedule() -> DDIMScheduler:
    """Return how much noise there is at each step, and how to go back.

    Source:
        Ho et al., 2020, arXiv:2006.11239, section 4 (linear variances); the way back of
        Song et al., 2021, arXiv:2010.02502; MONAI's ``DDIMScheduler``.
    """
    return DDIMScheduler(num_train_timesteps=STEPS)


def autoencoder_loss(
    network: nn.Module, clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean square of what is wrong with noisy pictures cleaned.

    Noise has up to 20 grey levels. Every second picture has it two pixels coarse: who
    cleans marked pictures can know that a mark is no finer.

    Source:
        Meng and Chen, 2017, arXiv:1705.09064 (MagNet), which adds white noise only.
    """
    n, channels, rows, columns = clean.shape
    fine = torch.randn(clean.shape, generator=generator)
    coarse = functional.interpolate(
        torch.randn(n, channels, rows // 2, columns // 2, generator=generator),
        size=(rows, columns),
        mode="bilinear",
    )
    fine[::2] = coarse[::2]
    strength = _STRONGEST_NOISE * torch.rand(n, 1, 1, 1, generator=generator)
    noisy = clean + (fine * strength).to(clean.device)
    return functional.mse_loss(network(noisy), clean)


def diffusion_loss(
    network: nn.Module, clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean square of what is wrong with the noise predicted at random steps.

    Source:
        Ho et al., 2020, arXiv:2006.11239, algorithm 1, up to the highest step needed.
    """
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    steps = torch.randint(HIGHEST_STEP, (len(clean),), generator=generator)
    steps = steps.to(clean.device)
    noisy = schedule().add_noise(original_samples=clean, noise=noise, timesteps=steps)
    return functional.mse_loss(network(noisy, steps), noise)


def train_denoiser(
    network: Network,
    objective: Objective[Network],
    pictures: NDArray[np.uint8],
    plan: DenoiserPlan,
    checkpoint: Path,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train ``network`` in place; it is in evaluation mode afterwards.

    Args:
        network: What to train, on the device where it is to be trained.
        objective: What to make small.
        pictures: Clean ones, ``(images, channels, rows, columns)``.
        plan: How.
        checkpoint: Written after each epoch; training goes on from it if it is of
            this plan and these pictures.
        report: Called with one line an epoch.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    epochs = plan.epochs(len(pictures))
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=plan.learning_rate,
        total_steps=math.ceil(len(pictures) / plan.batch) * epochs,
        pct_start=0.1,
    )
    generator = torch.Generator().manual_seed(plan.seed)
    first = 0
    made_for = f"{plan!r} {pictures_digest(pictures)}"
    state = load_checkpoint(checkpoint, made_for, device)
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        cycle.load_state_dict(state["cycle"])
        generator.set_state(state["generator"].cpu())
        first = state["epoch"]
    samples = torch.from_numpy(pictures)
    for epoch in range(first, epochs):
        network.train()
        total = torch.zeros((), device=device)
        order = torch.randperm(len(samples), generator=generator)
        for chosen in torch.split(order, plan.batch):
            clean = _cut_out(samples[chosen], generator).to(device)
            loss = objective(network, clean, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), _LONGEST_GRADIENT)
            optimiser.step()
            cycle.step()
            total += loss.detach() * len(chosen)
        save_checkpoint(
            checkpoint,
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "cycle": cycle.state_dict(),
                "generator": generator.get_state(),
                "epoch": epoch + 1,
                "made_for": made_for,
            },
        )
        report(f"epoch {epoch + 1}/{epochs} loss {total.item() / len(samples):.5f}")
    network.eval()


def _cut_out(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return the same square of each picture, half of the time mirrored; -1..1."""
    top, left = (
        int(torch.randint(max(size - _CUT_OUT, 0) + 1, (), generator=generator))
        for size in pictures.shape[-2:]
    )
    square = pictures[..., top : top + _CUT_OUT, left : left + _CUT_OUT]
    if torch.rand((), generator=generator) < 0.5:
        square = square.flip(-1)
    return square.float() / 127.5 - 1
