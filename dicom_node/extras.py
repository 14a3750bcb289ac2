"""Parts of the installation that a site may do without, and what to say where one is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Say which extra is not installed, where an import shows that it is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} needs {error.name}, which is not installed",
            hint=f"pip install 'miadmark[{name}]'; stripping needs none of it.",
        ) from error
