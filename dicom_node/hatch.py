"""A hatch: a folder through which a program on this machine hands objects to the node.

This is the table ``[[hatch]]`` of a configuration; what is done with the folder stands in
:mod:`dicom_node.hatch_folder`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.addressing import check_ae_title
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hatch:
    """The table ``[[hatch]]`` of a configuration."""

    name: str
    folder: Path
    calling_ae_title: str = "ORTHANC"
    """What routes take for who has sent it."""
    called_ae_title: str = "MIADMARK"
    """What routes take for whom it was sent to."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not self.name:
            raise ConfigError("a hatch has no name", hint='name = "orthanc"')
        for title in (self.calling_ae_title, self.called_ae_title):
            check_ae_title(f"hatch {self.name!r}", title)
