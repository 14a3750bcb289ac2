"""How hard to look for marks, and how much they may show: nothing but numbers."""

from __future__ import annotations

from dataclasses import dataclass

from miadmark_core.mode import Mode
from miadmark_core.search.views import GRID_SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to look, and how much the result may show."""

    steps: int = 10
    """Each through random changes, by two surrogates at once or by one twice."""
    drawn_steps: int | None = None
    """The same where a generator draws the start; None not to ask it."""
    settling: int = 3
    """Steps after these, through all surrogates that are not misled yet, unchanged."""
    step_size: float = 0.7
    """Of a full step; the root mean square of the first move. Later ones shrink evenly
    to a tenth, so that the last ones settle rather than wander."""
    decay: float = 0.8
    """How much of the last direction is kept."""
    least_psnr_db: float = 36.2
    """Of what a view shows; a little above what is promised, since rounding adds."""
    escalated_psnr_db: float = 35.1
    """The same for what misleads nobody otherwise."""
    escalation: int = 8
    """Steps more, through random changes, for what misleads nobody otherwise."""
    margin: float = 8.0
    """In logits: how thoroughly a surrogate is misled before it stops pulling."""
    mode: Mode = Mode.AUTO
    """What images are led to."""
    slope: float = 0.5
    """How steeply the spectrum of each move falls, as a power of the frequency: images
    fall with about 1, and what falls as they do is hardest to filter off."""
    cells: int = GRID_SIDE
    """Of the grid that differ, along each side; ``GRID_SIDE`` over a whole number."""
    is_changed: bool = True
    """Whether the surrogates see the image through random changes."""
    only: str = ""
    """The one kind of network to look through; all if empty, or if none is of it."""

    def __post_init__(self) -> None:
        """Refuse cells that do not divide the grid."""
        if self.cells < 1 or GRID_SIDE % self.cells:
            raise ValueError(f"{self.cells} cells do not divide {GRID_SIDE}")
