"""How a site wants its marks: what kind, how hard to look, and which are good enough.

Choices only, as a configuration or a command line names them; nothing here marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from miadmark_core.mode import Mode


class Profile(StrEnum):
    """What kind of mark the node looks for, and how hard."""

    STANDARD = "standard"
    FAST = "fast"
    """A generator draws the mark, a few steps refine it; it misleads less."""
    STRONG = "strong"
    """Three times the time, and more of a mark for classifiers that nobody knows."""
    LOGO = "logo"
    """A visible notice: logos outside the region that matters."""


class WeakMarks(StrEnum):
    """What becomes of a mark that does not mislead whom it was tried on."""

    HOLD = "hold"
    SEND = "send"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """How marks are looked for, and which are good enough."""

    profile: Profile = Profile.STANDARD
    mode: Mode = Mode.AUTO
    """What images are led to; a logo leads to error, whatever it says."""
    weak_marks: WeakMarks = WeakMarks.HOLD
    """Of faint marks; a logo is a notice too, and goes out."""

    @property
    def style(self) -> str:
        """Return how the site marks, in short: what new UIDs depend on."""
        return f"{self.profile} {self.mode}"
