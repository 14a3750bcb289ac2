"""The conditions of a suite: which purifiers and removers a mark is put through.

What has to be trained is trained when it is first needed, from pictures of the split
``victim``, and kept; a condition's version says which weights it has.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from miadmark_core.evaluation.denoisers import (
    is_colour,
    purifier_of,
    split_pictures,
    trained_denoiser,
    trained_diffusion,
    trained_network,
)
from miadmark_core.evaluation.protocol import CHUNK, Condition
from miadmark_core.evaluation.purify import CLASSICAL
from miadmark_core.evaluation.removal import (
    logo_loss,
    marked_again,
    paired,
    pairs_loss,
    without_common_mark,
)
from miadmark_core.evaluation.results import PURIFIED, REMOVED
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.evaluation.store import digest, pixels_digest
from miadmark_core.training.classifier import Plan, train
from miadmark_core.training.denoisers import Autoencoder, LogoRemover

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from miadmark_core.evaluation.denoisers import Remover
    from miadmark_core.evaluation.protocol import Engine, Judge
    from miadmark_core.evaluation.purify import Purifier
    from miadmark_core.evaluation.store import Store
    from miadmark_core.training.denoisers import DenoiserPlan, Objective
    from miadmark_core.training.labelled_images import LabelledImages

    Pixels = NDArray[np.uint8]

FINE_TUNING: Final = Plan(size=0, epochs=3, learning_rate=5e-4, is_balanced=True)
"""Of a classifier on marked pictures; size and preparation are the classifier's."""

CODE: Final = code_digest(
    Path(__file__).with_name(name) for name in ("purify.py", "removal.py")
)
"""Stands for what attackers do that needs no training."""

LEARNED: Final = ("autoencoder", "diffusion-025", "diffusion-050", "diffusion-100")
REMOVERS: Final = ("logo-remover", "series-mean")
ADAPTIVE: Final = ("marked-again", "own-pairs", "fine-tuned")
"""For these an attacker needs the tool that marks."""
ALL: Final = (*(p.name for p in CLASSICAL), *LEARNED, *REMOVERS, *ADAPTIVE)
"""Names of every condition there is."""


def tried_on(engine: Engine, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of the named conditions an engine can be put through."""
    without = ADAPTIVE if engine.is_published else ()
    return tuple(name for name in names if name not in without)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """An engine in an attacker's hands: with other keys."""

    engine: Engine
    hurried: Engine
    """What marks the pictures that are to be learned from; may be the same."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attackers:
    """What attackers have: a folder of clean pictures, a folder for their weights."""

    folder: Path
    """The set; the split ``victim`` is theirs."""
    own: LabelledImages
    """The pictures that they mark to learn from."""
    remover_plan: DenoiserPlan
    """How they train what removes marks."""
    out: Path
    store: Store
    device: torch.device
    report: Callable[[str], None]

    def conditions(self, names: Sequence[str], tool: Tool) -> list[Condition]:
        """Return the named conditions against an engine.

        Args:
            names: Of :data:`ALL`.
            tool: The engine in the attacker's hands.
        """
        purifiers = {p.name: p for p in CLASSICAL}
        if set(names) & {"autoencoder"}:
            made = trained_denoiser(self.folder, self.out, self.device, self.report)
            purifiers[made.name] = made
        if any(name.startswith("diffusion") for name in names):
            for made in trained_diffusion(
                self.folder, self.out, self.device, self.report
            ):
                purifiers[made.name] = made
        return [
            self._purifying(purifiers[name])
            if name in purifiers
            else self._removing(name, tool)
            for name in names
        ]

    def _purifying(self, purifier: Purifier) -> Condition:
        version = CODE
        if purifier.name in LEARNED:
            kind = purifier.name.partition("-")[0]
            weights = self.out / f"{self.folder.name}-{kind}.safetensors"
            version = hashlib.sha256(weights.read_bytes()).hexdigest()
        return Condition(
            name=purifier.name, kind=PURIFIED, version=version, apply=purifier.apply
        )

    def _removing(self, name: str, tool: Tool) -> Condition:
        if name == "series-mean":
            return Condition(
                name=name, kind=REMOVED, version=CODE, apply=without_common_mark
            )
        if name == "marked-again":

            def mark(pixels: Pixels) -> Pixels:
                return self._marked(tool.engine, pixels)

            return Condition(
                name=name,
                kind=REMOVED,
                version=tool.engine.version,
                apply=partial(marked_again, mark=mark),
                knows_our_marks=True,
            )
        if name == "logo-remover":
            return self._learned(
                name,
                name,
                LogoRemover,
                logo_loss,
                partial(split_pictures, self.folder),
                knows=False,
            )
        if name == "fine-tuned":
            return Condition(
                name=name,
                kind=REMOVED,
                version=self._made_from(tool.hurried),
                apply=lambda pixels: pixels,
                knows_our_marks=True,
                adapt=partial(self._fine_tuned, tool.hurried),
            )
        hurried = tool.hurried
        file_name = f"{name}-{len(self.own)}-{hurried.name}-{self._made_from(hurried)}"
        return self._learned(
            name,
            file_name,
            Autoencoder,
            pairs_loss,
            lambda: self._pairs(hurried),
            knows=True,
        )

    def _pairs(self, engine: Engine) -> NDArray[np.uint8]:
        own = self.own.pixels
        return paired(own, self._marked(engine, own))

    def _learned(
        self,
        name: str,
        file_name: str,
        make: type[Remover],
        objective: Objective[Remover],
        pictures: Callable[[], NDArray[np.uint8]],
        *,
        knows: bool,
    ) -> Condition:
        file = self.out / f"{self.folder.name}-{file_name}.safetensors"
        network = trained_network(
            file,
            make,
            objective,
            self.remover_plan,
            3 if is_colour(self.folder.name, self.own.pixels) else 1,
            pictures,
            self.device,
            self.report,
        )
        return Condition(
            name=name,
            kind=REMOVED,
            version=hashlib.sha256(file.read_bytes()).hexdigest(),
            apply=purifier_of(name, network).apply,
            knows_our_marks=knows,
        )

    def _fine_tuned(self, engine: Engine, judge: Judge) -> Judge:
        """Return the classifier after some epochs on marked pictures with labels."""
        network = copy.deepcopy(judge.network).requires_grad_()
        own = replace(self.own, pixels=self._marked(engine, self.own.pixels))
        plan = replace(FINE_TUNING, size=judge.size, preparation=judge.preparation)
        name = digest((judge.sha256, self._made_from(engine), plan))
        kept = self.out / "checkpoints" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        self.report(f"{self.folder.name}: fine-tuning {judge.name}")
        train(network, own, plan, kept.with_suffix(".pt"))
        return replace(judge, network=network)

    def _made_from(self, engine: Engine) -> str:
        """Return what stands for all that an attacker's learning rests on."""
        own = self.own
        return digest(
            (
                engine.version,
                pixels_digest(own.pixels),
                pixels_digest(own.labels),
                self.remover_plan,
                FINE_TUNING,
            )
        )

    def _marked(self, engine: Engine, pixels: Pixels) -> Pixels:
        parts = []
        for start in range(0, len(pixels), CHUNK):
            chunk = pixels[start : start + CHUNK]
            stored = self.store.arrays(
                f"attacker-{engine.name}-{self.folder.name}-{start}",
                (engine.version, pixels_digest(chunk)),
                lambda chunk=chunk: {  # type: ignore[misc]
                    "pixels": engine.mark(self.folder.name, chunk).pixels
                },
            )
            parts.append(stored["pixels"].astype(np.uint8))
        return np.concatenate(parts)
