"""The configuration: whether it can work, what may not be meant, who may change it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from dicom_node.doctor.finding import note, ok, wrong
from dicom_node.errors import ConfigError
from dicom_node.review import warnings_of
from dicom_node.usability import require_usable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding


def configuration(case: Case) -> Iterator[Finding]:
    """Yield what is to be said of the file, as ``config check`` does."""
    if case.config_path is None:
        yield note("no configuration was named", "miadmark doctor --config node.toml")
        return
    if case.refused is not None:
        yield wrong(str(case.refused), case.refused.hint)
        return
    assert case.config is not None  # it was read, or refused
    yield from who_may_change(case.config_path.stat(), os.geteuid(), "it")
    try:
        require_usable(case.config)
    except ConfigError as error:
        yield wrong(str(error), error.hint)
    else:
        yield ok(f"{case.config_path} can work")
    for warning in warnings_of(case.config):
        yield note(warning)


def who_may_change(found: os.stat_result, uid: int, what: str) -> Iterator[Finding]:
    """Yield if a file may be written by others than root, its reader and its group.

    Args:
        found: What is known of the file.
        uid: Of the reader.
        what: How to call it.
    """
    if found.st_mode & stat.S_IWOTH:
        yield wrong(
            f"everybody may write {what}: whoever does decides what leaves unmarked",
            "chmod o-w",
        )
    if found.st_uid not in {0, uid}:
        yield note(f"{what} belongs to user {found.st_uid}, who may change it")
