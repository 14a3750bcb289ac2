"""What is looked at: a configuration, if there is one, and the state that it names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dicom_node.attachment import attached
from dicom_node.config_file import load
from dicom_node.errors import ConfigError
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.ring import FILE
from dicom_node.routing import Action

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from dicom_node.config import Config
    from dicom_node.queueing import Queueing


@dataclass(frozen=True, kw_only=True)
class Case:
    """One installation. Nothing is opened before it is asked for, or made at all."""

    state: Path | None
    """Its state folder; None where that is not known."""
    now: datetime
    """Aware."""
    config_path: Path | None = None
    """Where its configuration lies; None where none was named."""
    config: Config | None = None
    """What that says; None where there is none, or it cannot be read."""
    refused: ConfigError | None = None
    """Why it cannot be read."""
    is_full: bool = False
    """Whether what takes long is looked at, too."""

    @classmethod
    def of(cls, path: Path, now: datetime, *, is_full: bool = False) -> Case:
        """Return the case of a configuration, whether that can be read or not."""
        try:
            config = load(path)
        except ConfigError as error:
            return cls(
                state=None, now=now, config_path=path, refused=error, is_full=is_full
            )
        return cls(
            state=config.node.state,
            now=now,
            config_path=path,
            config=config,
            is_full=is_full,
        )

    @property
    def marks(self) -> bool:
        """Return whether something is to be marked here."""
        return self.config is not None and any(
            route.action is Action.MARK for route in self.config.routes
        )

    @property
    def has_state(self) -> bool:
        """Return whether there is a state folder to look into."""
        return self.state is not None and self.state.is_dir() and not self.is_shut

    @property
    def is_shut(self) -> bool:
        """Return whether this account may not look into a state folder that is there."""
        return (
            self.state is not None and self.state.is_dir() and not _is_open(self.state)
        )

    @property
    def folder(self) -> Path:
        """Return the state folder of a case that has one."""
        assert self.state is not None  # whoever asks has looked
        return self.state

    @property
    def place(self) -> Queueing | None:
        """Return the database on a server that the state goes with; None if none."""
        try:
            found = attached(self.folder)
        except ConfigError:  # said of the databases
            return None
        return None if found is None else found.place

    @property
    def files(self) -> Path:
        """Return where its keys are: with those of all nodes, where they share them."""
        place = self.place
        return self.folder if place is None else place.shared or self.folder

    @property
    def root_kind(self) -> str:
        """Return what keeps the root key; empty if there is none, or it is not said."""
        if not self.has_state:
            return ""
        try:
            ring = json.loads((self.files / "keys" / FILE).read_bytes())
            return str(ring["root"]["kind"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""  # what is wrong with the ring is said where keys are looked at

    @cached_property
    def keyring(self) -> Keyring | None:
        """Return the keys of the site, opened; None if there are none, or they do not.

        What is wrong with them is said where keys are looked at.
        """
        try:
            return self.opened_keys()
        except Exception:  # noqa: BLE001 a token's library raises what it likes
            return None

    def opened_keys(self) -> Keyring | None:
        """Return the keys of the site; None if there are none.

        Raises:
            KeyFolderError: They cannot be opened.
            KeyServiceError: Whoever keeps the root does not answer.
        """
        folder = self.files / "keys"
        return Keyring(folder) if Keyring.exists(folder) else None


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)
