"""Where the nodes of one site find what they have in common: table ``[charter]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """The table ``[charter]``."""

    source: str = ""
    """A file, or ``https://``: where a node that follows finds it."""
    publish: Path | None = None
    """A file: where the lead leaves it."""
    ca: Path | None = None
    """What the server's certificate is signed by, PEM; else the system's authorities."""
    every_s: float = 30.0
    """How often it is looked for, or looked whether there is a new one to issue."""
    again_h: float = 24.0
    """After how many hours the lead issues it again, so that nodes see that it lives."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if bool(self.source) == (self.publish is not None):
            raise ConfigError(
                "charter: one of source and publish",
                hint="A node follows (source), or leads (publish).",
            )
        if "://" in self.source and not self.source.startswith("https://"):
            raise ConfigError(
                f"charter: source {self.source!r}", hint="A file, or https://host/path."
            )
        if self.every_s <= 0 or self.again_h <= 0:
            raise ConfigError("charter: every_s and again_h are above 0")
