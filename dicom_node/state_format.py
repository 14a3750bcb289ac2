"""The number of the format that a state folder is in, so that no older version opens it.

A later version opens what an earlier one has left and brings it forward; the other way
round nobody knows what would be misread, so it is refused. Versions before 0.3 neither
write the number nor look for it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from dicom_node.durable import write_durably
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = 1
"""To be raised with any change that the version before could not work with."""
FILE: Final = "format.json"
UNFINISHED: Final = b'{"format": "unfinished"}'
"""What the file says while a backup is put back: no version since 0.3 opens that."""


def require_known(folder: Path) -> None:
    """Return if this version may open a state folder, and note that it has.

    Raises:
        ConfigError: A later version has written it.
    """
    found = format_of(folder)
    if found > FORMAT:
        raise ConfigError(
            f"{folder} is in format {found}, and this version knows formats up to "
            f"{FORMAT}: a later version has used it",
            hint="Use that version, or restore the backup from before the upgrade into "
            "another folder (miadmark state restore).",
        )
    if found < FORMAT:
        write_durably(folder / FILE, json.dumps({"format": FORMAT}).encode())


def format_of(folder: Path) -> int:
    """Return the format of a state folder; 0 for that of versions before 0.3.

    Raises:
        ConfigError: The file that says so says something else, or the folder is only
            half of a backup.
    """
    try:
        content = (folder / FILE).read_bytes()
        found = json.loads(content)["format"]
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / FILE} does not say which format the state is in",
            hint="It is a damaged file: compare with a backup.",
        ) from error
    if content == UNFINISHED:
        raise ConfigError(
            f"a backup was being put back into {folder}, and that was interrupted",
            hint="Delete what is in it, and try again: miadmark state restore.",
        )
    if not isinstance(found, int):
        raise ConfigError(f"{folder / FILE}: format {found!r}")
    return found
