"""The section ``MiadMark`` of Orthanc's configuration, every field of it checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from dicom_node.errors import ConfigError

SECTION: Final = "MiadMark"


class Role(StrEnum):
    """What this Orthanc is to the node."""

    EGRESS = "egress"
    """A way in: whatever arrives is handed to the node, and nothing is kept."""
    FEED = "feed"
    """An archive: copies of what it has are handed to the node once a study is stable."""


@dataclass(frozen=True, slots=True)
class OrthancSettings:
    """All of it."""

    role: Role
    hatch: Path
    """The folder of a hatch of the node."""
    feeds_existing: bool = False
    """Whether what was stored before the first start is handed in as well."""


def read_settings(configuration: str) -> OrthancSettings:
    """Return what Orthanc's configuration says about the node.

    Args:
        configuration: JSON, as Orthanc returns it.

    Raises:
        ConfigError: Something is missing, not known, or cannot be done.
    """
    section = json.loads(configuration).get(SECTION)
    if not isinstance(section, dict):
        raise ConfigError(
            f"Orthanc's configuration has no section {SECTION}",
            hint=f'"{SECTION}": {{"Role": "egress", "Hatch": "/srv/hatch"}}',
        )
    unknown = section.keys() - {"Role", "Hatch", "FeedExisting"}
    if unknown:
        raise ConfigError(
            f"{SECTION}: {min(unknown)} is not known",
            hint="Known: FeedExisting, Hatch, Role.",
        )
    role = _role(section.get("Role"))
    hatch = section.get("Hatch")
    if not isinstance(hatch, str) or not Path(hatch).is_absolute():
        raise ConfigError(
            f"{SECTION}: Hatch = {hatch!r}",
            hint="The absolute path of a folder that [[hatch]] in node.toml names.",
        )
    feeds_existing = section.get("FeedExisting", False)
    if not isinstance(feeds_existing, bool) or (
        "FeedExisting" in section and role is not Role.FEED
    ):
        raise ConfigError(
            f"{SECTION}: FeedExisting = {feeds_existing!r}",
            hint="true or false, and only with the role feed.",
        )
    return OrthancSettings(role, Path(hatch), feeds_existing)


def _role(value: Any) -> Role:
    try:
        return Role(value)
    except ValueError as error:
        raise ConfigError(
            f"{SECTION}: Role = {value!r}", hint=f"One of: {', '.join(Role)}."
        ) from error
