"""What an instance costs, measured on one machine: seconds of one core, and bytes.

``miadmark capacity measure`` writes them as JSON. Those that come with the package are of
the machine that they name; what a graphics card does nobody has measured for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING, Final

from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MOST_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Of an instance, one like another."""

    machine: str
    """What it was measured on, and when, for people."""
    image: str
    """What kind of instance, for people."""
    image_bytes: int
    """Of its file, as it comes."""
    marked_bytes: int
    """Of its file, as it goes."""
    mark_s: Mapping[str, float]
    """By profile: decoding, search, seal, proof, record. Of one core."""
    strip_s: float
    """Of one core, with every check."""
    receive_s: float
    """Of one core: taken in, and durable."""
    send_s: float
    """Of one core: claimed, sent as it is, settled."""
    take_s: float
    """By the clock: for which one association and the queue's file are held, on that
    disk, until an instance is durable and the next may come."""
    ledger_bytes: int
    """That stay for as long as its original is to come back."""
    queue_bytes: int
    """That stay for as long as settled rows are kept."""

    def __post_init__(self) -> None:
        """Refuse what nobody can have measured."""
        seconds = {
            **{f"mark_s {name}": value for name, value in self.mark_s.items()},
            "strip_s": self.strip_s,
            "receive_s": self.receive_s,
            "send_s": self.send_s,
            "take_s": self.take_s,
        }
        for name, value in seconds.items():
            if not 0 < value < _MOST_S:
                raise ConfigError(f"{name} = {value}", hint="Seconds, above 0.")
        if not self.mark_s or min(self.image_bytes, self.marked_bytes) <= 0:
            raise ConfigError("there is no profile, or an image has no bytes")

    def as_json(self) -> str:
        """Return them as JSON; the inverse of :meth:`of_json`."""
        return f"{json.dumps(asdict(self), indent=2)}\n"

    @classmethod
    def of_json(cls, text: str) -> Constants:
        """Return the constants in JSON.

        Raises:
            ConfigError: It holds none, or impossible ones.
        """
        try:
            values = dict(json.loads(text))
            return cls(**{one.name: values.pop(one.name) for one in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"these are no constants: {type(error).__name__} {error}",
                hint="miadmark capacity measure --out FILE writes some.",
            ) from error


def read_constants(path: Path | None) -> Constants:
    """Return the constants in a file; without one, those that come with the package.

    Raises:
        ConfigError: It holds none.
        OSError: It cannot be read.
    """
    if path is not None:
        return Constants.of_json(path.read_text("utf-8"))
    shipped = resources.files("dicom_node.capacity") / "constants.json"
    return Constants.of_json(shipped.read_text("utf-8"))
