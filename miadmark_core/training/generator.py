"""Train the network that draws marks at once, against the surrogates it stands for.

The objective is the search's: what surrogates still make of the marked picture, seen
through random changes. To it come that two marks of one picture have little in common,
and that a small network, which learns all the while to take the marks off, gains nothing
by it. No label is used. Checkpoints are written as classifiers' are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from miadmark_core.mode import Mode
from miadmark_core.search.aim import Aim
from miadmark_core.search.budget import Budget, budget_of, region_of
from miadmark_core.search.generator import SIDE, Generator, leaving_of, noise_for
from miadmark_core.search.transform import transformed
from miadmark_core.search.views import view
from miadmark_core.training.classifier import (
    load_checkpoint,
    pictures_digest,
    save_checkpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from miadmark_core.search.surrogate import Surrogate


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorPlan:
    """How long and how fast to train."""

    pictures: int = 4_800
    """How many it is shown in all."""
    batch: int = 16
    twins: int = 4
    """So many pictures of a batch are in it twice, with other noise."""
    learning_rate: float = 2e-3
    pattern_rate: float = 4e-2
    """The learning rate of the patterns, which every picture of a class moves."""
    weight_decay: float = 1e-4
    diversity: float = 2.0
    """The weight of what two marks of one picture have in common."""
    removal_share: float = 0.25
    """How often marks are looked at after the remover took off what it could."""
    peak: float = 8 / 255
    """What a full step adds, as a share of the display window."""
    least_psnr_db: float = 36.2
    margin: float = 4.0
    seed: int = 1
    every: int = 40
    """Batches between two checkpoints."""


COMMON: Final = 0.1
"""The correlation of two marks of one picture that costs nothing."""


def train_generator(
    pixels: NDArray[np.uint8],
    surrogates: Sequence[Surrogate],
    classes: int,
    plan: GeneratorPlan,
    checkpoint: Path,
    device: torch.device,
    report: Callable[[str], None] = lambda _: None,
    *,
    is_colour: bool,
) -> Generator:
    """Return a generator of marks for pictures like these, in evaluation mode.

    Args:
        pixels: ``(images, rows, columns, 3)``.
        surrogates: Whom its marks are to mislead, by turns.
        classes: That they tell apart; 0 for encoders.
        plan: How.
        checkpoint: Written now and then; training goes on from it if it is of this
            plan, these pictures, and surrogates of these names.
        device: Where to train, and where the surrogates are.
        report: Called with a line of progress now and then.
        is_colour: Whether the marks have three planes.
    """
    torch.manual_seed(plan.seed)
    planes = 3 if is_colour else 1
    network = Generator(classes, planes).to(device)
    remover = _remover(planes).to(device)
    batches = plan.pictures // (plan.batch - plan.twins)
    optimiser, rest = _optimiser(network, plan)
    unlearning = torch.optim.AdamW(remover.parameters(), lr=plan.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=[plan.learning_rate, plan.pattern_rate],
        total_steps=batches,
        pct_start=0.1,
    )
    random = torch.Generator().manual_seed(plan.seed)
    kept: dict[str, Any] = {
        "network": network,
        "remover": remover,
        "optimiser": optimiser,
        "unlearning": unlearning,
        "schedule": schedule,
    }
    told = repr((plan, classes, planes, [s.name for s in surrogates]))
    made_for = hashlib.sha256(told.encode()).hexdigest() + pictures_digest(pixels)
    first = 0
    if (state := load_checkpoint(checkpoint, made_for, device)) is not None:
        for name, part in kept.items():
            part.load_state_dict(state[name])
        random.set_state(state["random"].cpu())
        first = state["batch"]
    shown = pixels[..., :planes]
    known = _known(shown, surrogates, plan, device)
    seen: list[float] = []
    for number in range(first, batches):
        lesson = _lesson(shown, known, surrogates, plan, random)
        grid = network(
            lesson.pixels,
            lesson.budget.limit,
            leaving_of(lesson.anchors, classes),
            noise_for(plan.batch, random).to(device),
        )
        grid = lesson.budget.filled(grid, SIDE)
        marked = lesson.marked(grid)
        left = marked
        if torch.rand((), generator=random) < plan.removal_share:
            taken = _taken_off(remover, marked, planes)
            left = (marked - lesson.budget.grown(taken, marked.shape[-1])).clamp(0, 1)
        which = number % len(surrogates)
        surrogate = surrogates[which]
        left = transformed(left, random, surrogate.size, is_coloured=is_colour)
        distance = surrogate.recognition(left, lesson.anchors[which])
        loss = distance.mean() + plan.diversity * _common(grid, plan.twins)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(rest, 1.0)
        optimiser.step()
        schedule.step()
        unlearning.zero_grad()
        missed = _taken_off(remover, marked.detach(), planes) - grid.detach()
        missed.abs().mean().backward()  # type: ignore[no-untyped-call]
        unlearning.step()
        seen.append(loss.item())
        if (number + 1) % plan.every == 0 or number + 1 == batches:
            states = {name: part.state_dict() for name, part in kept.items()}
            now = {"random": random.get_state(), "batch": number + 1}
            save_checkpoint(checkpoint, {**states, **now, "made_for": made_for})
            report(f"batch {number + 1}/{batches} loss {sum(seen) / len(seen):.3f}")
            seen.clear()
    return network.eval().requires_grad_(requires_grad=False)


def _optimiser(
    network: Generator, plan: GeneratorPlan
) -> tuple[torch.optim.AdamW, list[nn.Parameter]]:
    """Return what trains the network and its patterns, and the network's parameters."""
    rest = [p for name, p in network.named_parameters() if name != "patterns"]
    groups: list[dict[str, Any]] = [
        {"params": rest, "weight_decay": plan.weight_decay},
        {"params": [network.patterns], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups), rest


class _Known(NamedTuple):
    """What is worked out once for every picture."""

    limits: Tensor
    """``(images, 1, height, width)``, half precision."""
    remembered: list[Tensor]
    """For each surrogate, a row a picture."""


def _known(
    shown: NDArray[np.uint8],
    surrogates: Sequence[Surrogate],
    plan: GeneratorPlan,
    device: torch.device,
) -> _Known:
    limits: list[Tensor] = []
    remembered: list[list[Tensor]] = [[] for _ in surrogates]
    for start in range(0, len(shown), plan.batch):
        part = shown[start : start + plan.batch].astype("float32") / 255
        views = [view(image, plan.peak) for image in part]
        x = torch.stack([v.pixels for v in views]).to(device)
        looks = [surrogate.looked(x) for surrogate in surrogates]
        region = region_of(views, [look.saliency for look in looks])
        limits.append(budget_of(views, region, plan.least_psnr_db, device).limit.half())
        for said, look in zip(remembered, looks, strict=True):
            said.append(look.remembered)
    return _Known(torch.cat(limits), [torch.cat(said) for said in remembered])


class _Lesson(NamedTuple):
    pixels: Tensor
    budget: Budget
    anchors: list[Tensor]

    def marked(self, grid: Tensor) -> Tensor:
        grown = self.budget.grown(grid, self.pixels.shape[-1])
        return (self.pixels + grown).clamp(0, 1)


def _lesson(
    shown: NDArray[np.uint8],
    known: _Known,
    surrogates: Sequence[Surrogate],
    plan: GeneratorPlan,
    random: torch.Generator,
) -> _Lesson:
    """Return what a batch of pictures gives to be learned, mirrored now and then."""
    chosen = torch.randint(len(shown), (plan.batch - plan.twins,), generator=random)
    chosen = torch.cat([chosen, chosen[: plan.twins]])
    lots = torch.rand(plan.batch - plan.twins, generator=random)
    # Twins are led to the same.
    lots = torch.cat([lots, lots[: plan.twins]])
    device = known.limits.device
    x = torch.from_numpy(shown[chosen.numpy()]).to(device)
    x, limit = x.permute(0, 3, 1, 2).float() / 255, known.limits[chosen].float()
    if torch.rand((), generator=random) < 0.5:
        x, limit = x.flip(-1), limit.flip(-1)
    aim = Aim(Mode.AUTO, lots.to(device), plan.margin)
    return _Lesson(
        x.expand(-1, 3, -1, -1),
        Budget(
            limit,
            torch.full((len(x), 1, 1, 1), plan.peak, device=device),
            plan.least_psnr_db,
        ),
        [
            surrogate.anchor(said[chosen], aim)
            for surrogate, said in zip(surrogates, known.remembered, strict=True)
        ],
    )


def _common(grid: Tensor, twins: int) -> Tensor:
    """Return what the marks of twins have in common beyond what costs nothing."""
    one, other = grid[:twins].flatten(1), grid[-twins:].flatten(1)
    alike = functional.cosine_similarity(one, other, dim=1)
    return torch.relu(alike - COMMON).mean()


def _remover(planes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(planes, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, planes, 3, padding=1),
    )


def _taken_off(remover: nn.Module, marked: Tensor, planes: int) -> Tensor:
    """Return the grid that the remover takes for the mark, in full steps."""
    small = functional.adaptive_avg_pool2d(marked[:, :planes], SIDE)
    found: Tensor = remover(2 * small - 1)
    return found
