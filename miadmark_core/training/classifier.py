"""Train one classifier on labelled pictures, the same way each time.

The loop is ordinary on purpose: AdamW, one learning-rate cycle, cross-entropy with
smoothed labels, random affine changes and contrast. It selects nothing: the weights
after the last epoch are the result, so no split has to be spent on choosing. It writes
a checkpoint after every epoch and goes on from there when started again.

Nothing here knows which networks there are, or what will be done with them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from miadmark_core.training.preparation import Preparation, prepared, standardised

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from miadmark_core.search.networks import Classifier
    from miadmark_core.training.labelled_images import LabelledImages


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast to train."""

    size: int
    """Rows and columns of what the network is shown."""
    epochs: int
    learning_rate: float
    """The highest of the cycle."""
    batch: int = 32
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    start_seed: int = 1
    """Of the weights that are not trained already."""
    seed: int = 0
    """Of the order of the images, and of how they are varied."""
    noise: float = 0.03
    """The highest standard deviation, of 0..1, of what is added to training pictures."""
    preparation: Preparation = Preparation.WHOLE
    is_balanced: bool = False
    """Whether a rare class weighs as much as a common one."""
    hardening: float = 0.0
    """The largest change, of 0..1, that an adversary makes to each training picture."""


def train(
    network: Classifier,
    images: LabelledImages,
    plan: Plan,
    checkpoint: Path,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Train ``network`` in place; it is in evaluation mode afterwards.

    Args:
        network: What to train, on the device where it is to be trained.
        images: What to train it on.
        plan: How.
        checkpoint: Written after each epoch; training goes on from it if it is of
            this plan and these images.
        report: Called with one line an epoch.
    """
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
    )
    batches = math.ceil(len(images) / plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=plan.learning_rate,
        total_steps=batches * plan.epochs,
        pct_start=0.2,
    )
    generator = torch.Generator().manual_seed(plan.seed)
    first = 0
    answers = images.labels.tobytes() + repr(images.classes).encode()
    made_for = " ".join(
        [
            repr(plan),
            pictures_digest(images.pixels),
            hashlib.sha256(answers).hexdigest(),
        ]
    )
    state = load_checkpoint(checkpoint, made_for, device)
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"].cpu())
        first = state["epoch"]
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2)
    labels = torch.from_numpy(images.labels)
    weights = _class_weights(labels, len(images.classes)) if plan.is_balanced else None
    loss_of = torch.nn.CrossEntropyLoss(
        weight=weights, label_smoothing=plan.label_smoothing
    ).to(device)
    for epoch in range(first, plan.epochs):
        network.train()
        total = torch.zeros((), device=device)
        order = torch.randperm(len(images), generator=generator)
        for chosen in torch.split(order, plan.batch):
            x = varied(pixels[chosen].to(device).float() / 255, plan, generator)
            if plan.preparation is Preparation.STANDARDISED:
                x = standardised(x)
            x = x.contiguous(memory_format=torch.channels_last)
            y = labels[chosen].to(device)
            if plan.hardening:
                x = _attacked(network, x, y, plan.hardening, generator)
            loss = loss_of(network(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(chosen)
        save_checkpoint(
            checkpoint,
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "generator": generator.get_state(),
                "epoch": epoch + 1,
                "made_for": made_for,
            },
        )
        report(f"epoch {epoch + 1}/{plan.epochs} loss {total.item() / len(images):.4f}")
    network.eval()


def accuracy(network: Classifier, images: LabelledImages, plan: Plan) -> float:
    """Return the share of ``images`` that ``network`` gets right, 0..1."""
    logits = predict(network, images.pixels, plan.size, plan.preparation)
    return float((logits.argmax(dim=1).numpy() == images.labels).mean())


@torch.inference_mode()
def predict(
    network: Classifier,
    pixels: NDArray[np.uint8],
    size: int,
    preparation: Preparation = Preparation.WHOLE,
) -> Tensor:
    """Return logits for pictures as an ordinary user would get them.

    Args:
        network: In evaluation mode.
        pixels: ``(images, rows, columns, 3)``.
        size: What the network is shown.
        preparation: How the pictures are brought to that.

    Returns:
        ``(images, classes)``, float32, on the CPU.
    """
    device = next(network.parameters()).device
    logits: list[Tensor] = []
    for start in range(0, len(pixels), 64):
        x = torch.from_numpy(pixels[start : start + 64]).permute(0, 3, 1, 2)
        x = prepared(x.to(device).float() / 255, size, preparation)
        logits.append(network(x).float().cpu())
    return torch.cat(logits)


def varied(images: Tensor, plan: Plan, generator: torch.Generator) -> Tensor:
    """Return each image turned, scaled, moved, mirrored and relit at random.

    Args:
        images: ``(batch, 3, rows, columns)`` in 0..1.
        plan: Says of what size the result is, and how noisy.
        generator: The only source of chance.
    """
    n, device = len(images), images.device

    def between(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(n, generator=generator)).to(device)

    angle = between(-math.radians(12), math.radians(12))
    zoom = between(0.85, 1.12)
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    affine = torch.stack(
        [
            torch.stack([cos * mirror, -sin, between(-0.07, 0.07)], dim=1),
            torch.stack([sin * mirror, cos, between(-0.07, 0.07)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(
        affine, [n, 3, plan.size, plan.size], align_corners=False
    )
    x = functional.grid_sample(images, grid, align_corners=False)
    contrast, light = between(0.8, 1.25), between(-0.08, 0.08)
    x = x * contrast.view(-1, 1, 1, 1) + light.view(-1, 1, 1, 1)
    noise = torch.randn(x.shape, generator=there(generator, device), device=device)
    return (x + noise * between(0, plan.noise).view(-1, 1, 1, 1)).clamp(0, 1)


def there(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return a source of chance on a device: the same one on the CPU.

    A GPU draws what is as large as a batch of pictures itself, from one number of
    ``generator``, in a hundredth of the time.
    """
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _class_weights(labels: Tensor, classes: int) -> Tensor:
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return len(labels) / (classes * counts)


def _attacked(
    network: Classifier,
    x: Tensor,
    y: Tensor,
    largest: float,
    generator: torch.Generator,
) -> Tensor:
    """Return ``x`` after one step against ``network`` from a random start.

    Source:
        Wong et al., 2020, arXiv:2001.03994, algorithm 3 ("fast" adversarial training).
    """
    drawn = torch.rand(x.shape, generator=there(generator, x.device), device=x.device)
    start = (drawn * 2 - 1) * largest
    attacked = (x + start).requires_grad_()
    loss = functional.cross_entropy(network(attacked), y)
    (gradient,) = torch.autograd.grad(loss, attacked)
    moved = start + 1.25 * largest * gradient.sign()
    return (x + moved.clamp(-largest, largest)).detach()


def pictures_digest(pixels: NDArray[np.uint8]) -> str:
    """Return 64 hexadecimal digits that stand for pictures."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def load_checkpoint(
    path: Path, made_for: str, device: torch.device
) -> dict[str, Any] | None:
    """Return what :func:`save_checkpoint` wrote; None if it was for something else."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
    return state if state.get("made_for") == made_for else None


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Write ``state`` to ``path``: the whole of it, or what was there before."""
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)
