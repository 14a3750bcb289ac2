"""Everything that is looked at, in the order in which somebody would mend it."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.doctor import (
    clock,
    codecs,
    configuration,
    databases,
    fellows,
    folder,
    installation,
    keys,
    machine,
    network,
    owing,
    papers,
    records,
    searching,
)
from dicom_node.doctor.finding import Level, Named, wrong
from dicom_node.errors import NodeError
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dicom_node.doctor.case import Case
    from dicom_node.doctor.finding import Finding

    Check = Callable[[Case], Iterable[Finding]]

CHECKS: Final[Mapping[str, Check]] = {
    "python": installation.python,
    "packages": installation.packages,
    "torch": searching.torch,
    "weights": searching.weights,
    "codecs": codecs.codecs,
    "configuration": configuration.configuration,
    "certificates": papers.papers,
    "state": folder.folder,
    "disk": machine.disk,
    "clock": clock.clock,
    "keys": keys.keys,
    "databases": databases.databases,
    "queue": owing.owing,
    "hatches": owing.hatches,
    "audit": records.audit,
    "grants": records.grants,
    "charter": fellows.charter,
    "limits": machine.limits,
    "ports": network.ports,
    "node": network.node,
    "peers": network.peers,
}
"""By the name that findings have."""


def examined(case: Case, names: Iterable[str] = CHECKS) -> Iterator[Named]:
    """Yield what there is to say, check by check; one that fails ends no other.

    Args:
        case: What is looked at.
        names: Of the checks.
    """
    for name in names:
        found = iter(CHECKS[name](case))
        while True:
            try:
                finding = next(found)
            except StopIteration:
                break
            except (NodeError, MiadMarkError) as error:
                yield Named(name, wrong(str(error), error.hint))
                break
            except OSError as error:
                where = error.filename or "a file"
                says = f"{where} cannot be read: {error.strerror}"
                yield Named(name, wrong(says, "Ask again as root, or as its owner."))
                break
            except Exception as error:  # noqa: BLE001 one surprise hides nothing else
                yield Named(name, wrong(f"it cannot be looked at: {_place(error)}"))
                break
            yield Named(name, finding)


def count(found: Iterable[Named], level: Level) -> int:
    """Return how many findings are of a level."""
    return sum(one.finding.level is level for one in found)


def _place(error: Exception) -> str:
    """Return what nobody has foreseen, in words that hold nothing of anybody's data."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
