"""Engines as a user meets them: pictures go through DICOM, both ways.

Every test picture is wrapped as a DICOM object, marked by the filter that the node uses,
and read back from the marked file; then it is stripped, and what comes back is what the
instrument compares.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import dicom_node
from dicom_node.demo import synthetic
from dicom_node.demo.synthetic import picture_object
from dicom_node.elements import PIXEL_DATA, Limits
from dicom_node.errors import NodeError
from dicom_node.filters.mark import mark
from dicom_node.filters.strip import strip
from dicom_node.instance import OpenInstance
from dicom_node.keys.sealer import Sealer
from miadmark_core.evaluation import baselines
from miadmark_core.evaluation.baselines import BSR, MI_FGSM, attacked
from miadmark_core.evaluation.protocol import Engine, Marked
from miadmark_core.evaluation.sources import code_digest
from miadmark_core.mode import Mode
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import PROFILES, Finder
from miadmark_core.training.cards import CARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import torch
    from numpy.typing import NDArray

    from dicom_node.filters.mark import Find
    from dicom_node.keys.keyring import Keyring
    from miadmark_core.evaluation.suite import MakeEngine
    from miadmark_core.search.logo import LogoEffort

    Pixels = NDArray[np.uint8]


_ROOT: Final = Path(dicom_node.__file__).parent.parent
_SEARCH: Final = _ROOT / "miadmark_core" / "search"
_LOGO_ALONE: Final = frozenset(
    {
        *(_SEARCH / name for name in ("logo.py", "pose.py", "artwork.py")),
        _ROOT / "miadmark_core" / "covering.py",
    }
)
"""Code that marks nothing but logos."""
_CODE: Final = code_digest(
    [
        *(set(_SEARCH.glob("*.py")) - _LOGO_ALONE),
        *(
            _ROOT / "miadmark_core" / f"{name}.py"
            for name in (
                "mark",
                "mode",
                "embedding",
                "marking",
                "metrics",
                "image",
            )
        ),
        _ROOT / "dicom_node" / "windowing.py",
        _ROOT / "dicom_node" / "filters" / "mark.py",
        _ROOT / "dicom_node" / "filters" / "picture.py",
        _ROOT / "dicom_node" / "filters" / "preparation.py",
        Path(synthetic.__file__),
    ]
)
"""Whatever changes this changes every mark."""
_LOGOS: Final = code_digest(_LOGO_ALONE)
"""Whatever changes this changes logos."""
_ATTACKS: Final = code_digest([Path(baselines.__file__)])
"""Whatever changes this changes the marks of published attacks."""

LOGO: Final = "logo"
PUBLISHED_ATTACKS: Final = (LOGO, "mi-fgsm", "bsr")
"""The first is the paper's own mark, and ships too."""

INFORMATION: Final = "information"
ENGINES: Final = ("standard", "fast", "strong", INFORMATION, *PUBLISHED_ATTACKS)
"""The profiles, which lead every set to error; the profile ``standard`` where it leads to
answers drawn by lot; and published attacks."""

ATTACKED: Final = ("standard",)
"""Against these attackers who hold the tool are tried; it costs them much time."""

HURRIED: Final[Mapping[str, str]] = {"standard": "fast"}
"""What an attacker marks pictures with that are only to be learned from."""


@dataclass(frozen=True)
class SeededKeys(Sealer):
    """Keys of a site whose marks anyone can make again: for measuring only."""

    secret: bytes = b""

    def derive(self, message: bytes) -> bytes:
        """Return bytes that follow from ``secret`` and nothing else."""
        return hmac.digest(self.secret, message, "sha256")


def profile_of(name: str) -> Effort | LogoEffort | None:
    """Return how an engine looks; None for a published attack.

    Args:
        name: One of :data:`ENGINES`, or a profile with changes, ``standard:cells=56``,
            say, or ``fast:settling=0,slope=1``: any field of
            :class:`~miadmark_core.search.effort.Effort`.

    Raises:
        NodeError: There is no such engine, or no such field.
    """
    base, _, changes = name.partition(":")
    if base not in ENGINES:
        raise NodeError(f"no engine {base!r}", hint=f"Known: {', '.join(ENGINES)}.")
    if changes and base in PUBLISHED_ATTACKS:
        raise NodeError(f"no engine {name!r}", hint=f"{base} takes no changes.")
    if base in PUBLISHED_ATTACKS:
        return PROFILES.get(base)
    effort = PROFILES["standard" if base == INFORMATION else base]
    assert isinstance(effort, Effort)
    # Measured as the paper measures: to error on every set.
    mode = Mode.INFORMATION if base == INFORMATION else Mode.ERROR
    effort = replace(effort, mode=mode)
    for change in filter(None, changes.split(",")):
        field, _, value = change.partition("=")
        before: Any = getattr(effort, field, None)
        try:
            read: Any = value if isinstance(before, str) else json.loads(value)
            if isinstance(before, Mode) or not _is_like(read, before):
                raise NodeError(f"no engine {name!r}: {change}")
            changed: dict[str, Any] = {field: read}
            effort = replace(effort, **changed)
        except (TypeError, ValueError) as error:
            raise NodeError(f"no engine {name!r}: {change}") from error
    return effort


def _is_like(value: object, before: object) -> bool:
    """Return whether a value is of the kind that it takes the place of."""
    number = (int, float)
    if before is None or (isinstance(before, number) and not isinstance(before, bool)):
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, type(before))


def engine_maker(
    keys: Keyring,
    clock: Callable[[], datetime],
    device: torch.device,
    report: Callable[[str], None],
) -> MakeEngine:
    """Return what makes the engines that :data:`ENGINES` names.

    Args:
        keys: Of any site; the seeds of the marks do not come from them.
        clock: Returns the time, aware.
        device: Where to search.
        report: Called with the reason why a picture was not marked.
    """

    def make(name: str, data_set: str, weights: Path, secret: bytes) -> Engine:
        seeded = SeededKeys(keys, count(1).__next__, (), secret)
        card = CARDS[data_set]
        attack = {a.name: a for a in (MI_FGSM, BSR)}.get(name)
        finder = Finder(
            weights,
            device=device,
            effort=profile_of(name),
            search=None if attack is None else partial(attacked, attack),
        )
        weighed = finder.version(card.modalities[0], card.body_parts[-1])
        version = f"{weighed} {_CODE} {secret.decode()}"
        if name == LOGO:
            version += f" {_LOGOS}"
        if attack is not None:
            version += f" {_ATTACKS} {attack.name}-{attack.steps}-{attack.copies}"
        engine = engine_through_dicom(
            name, version, find=finder.find, keys=seeded, clock=clock, report=report
        )
        return replace(
            engine,
            is_beside=name not in ATTACKED,
        )

    return make


def engine_through_dicom(
    name: str,
    version: str,
    *,
    find: Find,
    keys: Sealer,
    clock: Callable[[], datetime],
    report: Callable[[str], None] = lambda _: None,
) -> Engine:
    """Return an engine that marks and strips as the node does.

    Args:
        name: How the table calls it.
        version: Changes whenever its marks would.
        find: How it finds its marks.
        keys: Of the site that marks; its seeds are derived from them.
        clock: Returns the time, aware.
        report: Called with the reason why a picture was not marked.
    """

    def marked(data_set: str, pixels: Pixels) -> Marked:
        card = CARDS[data_set]
        stored = pixels if card.is_colour else pixels[..., 0]
        originals = [
            OpenInstance.of(
                _encoded(image, card.modalities[0], card.body_parts[-1]), Limits()
            )
            for image in stored
        ]
        outcomes = mark(originals, find=find, keys=keys, now=clock(), holds_weak=False)
        shown, restored = np.empty_like(stored), np.empty_like(stored)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, Exception):
                # It would be held, not sent. Counted with those left unmarked.
                report(f"{name} on {data_set}: {outcome}")
                shown[index] = restored[index] = stored[index]
                continue
            sent = OpenInstance.of(outcome.file.to_bytes(), Limits())
            shown[index] = _pixels(sent, stored[index])
            back = strip(sent, keys.opening())
            restored[index] = _pixels(
                OpenInstance.of(back.file.to_bytes(), Limits()), stored[index]
            )
        return Marked(_rgb(shown), _rgb(restored))

    return Engine(name=name, version=version, mark=marked)


def _encoded(image: Pixels, modality: str, body_part: str) -> bytes:
    buffer = io.BytesIO()
    numbers = iter(range(1, 100))
    dataset = picture_object(
        image,
        modality=modality,
        body_part=body_part,
        # The same picture is the same object, so that it gets the same seed again.
        new_uid=lambda: f"2.25.{_number(image)}.{next(numbers)}",
    )
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _number(image: Pixels) -> int:
    return int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:12])


def _pixels(instance: OpenInstance, like: Pixels) -> Pixels:
    value = bytes(instance.elements.value_of(PIXEL_DATA))
    return np.frombuffer(value, np.uint8)[: like.size].reshape(like.shape)


def _rgb(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 4 else np.repeat(pixels[..., np.newaxis], 3, -1)
