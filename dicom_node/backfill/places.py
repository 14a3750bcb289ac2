"""What people call the places that objects come from and go to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.backfill.source import FolderSource
from dicom_node.backfill.target import FolderTarget
from dicom_node.errors import BackfillError

if TYPE_CHECKING:
    from dicom_node.backfill.source import Source
    from dicom_node.backfill.target import Target


def source_at(place: str) -> Source:
    """Return the source at a place: a folder.

    Raises:
        BackfillError: It is none.
    """
    return FolderSource(Path(place))


def target_at(place: str) -> Target:
    """Return the target at a place: a folder."""
    return FolderTarget(Path(place))


def require_apart(source: str, target: str) -> None:
    """Return if neither of two places lies in the other.

    Args:
        source: Address of the one.
        target: Of the other.

    Raises:
        BackfillError: One does: originals and outputs would lie side by side.
    """
    one, other = (f"{address.rstrip('/')}/" for address in (source, target))
    if one.startswith(other) or other.startswith(one):
        raise BackfillError(
            f"{source} and {target} lie in one another",
            hint="Outputs would be read again, or overwrite originals. Choose another "
            "--out.",
        )
