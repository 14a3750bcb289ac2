"""What a site allows in an emergency: that an instance leaves without its mark.

Choices only, as a configuration names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dicom_node.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """Who may have an instance sent as it came by a route that marks.

    There is no second person and no passphrase: in an emergency there may be neither,
    and whoever can give the order can read the state folder, and so the instance, anyway.
    What keeps it honest is the audit, which names who, on which account, and why.
    """

    allowed: bool = False
    names: tuple[str, ...] = ()
    """Who; empty: whoever can give the order on the node's own machine."""
    good_for_h: float = 4.0
    """How long an order that could not be carried out is good for."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.good_for_h <= 7 * 24:
            raise ConfigError(
                f"break_glass: good_for_h {self.good_for_h}",
                hint="Hours, above 0, and a week at most.",
            )

    @property
    def good_for(self) -> timedelta:
        """Return :attr:`good_for_h`."""
        return timedelta(hours=self.good_for_h)

    def objection(self, by: str) -> str:
        """Return why somebody may not; empty if he may."""
        if not self.allowed:
            return "the configuration does not allow break-glass"
        if self.names and by not in self.names:
            return f"{by!r} is not among those who may break the glass"
        return ""
