"""Hand copies of what an Orthanc stores to a hatch, once each study is stable.

Orthanc's own log of changes says what has arrived, and each instance that was handed in
says so in its metadata, written only once the hatch holds it durably. So nothing is left
out when Orthanc or this is killed; something may be handed in twice, which the node
notices. Late objects are handed in alone. Orthanc's own copies are never changed.

What is not known here: whether the node has sent anything on. Somebody who empties the
log of changes while Orthanc is stopped takes away what is not handed in yet.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from dicom_node.hatch_folder import HatchFolder

logger = logging.getLogger(__name__)

HANDED_IN: Final = 4747
"""Number of the metadata that says an instance was handed in (Orthanc: 1024 and more)."""
_AT_ONCE: Final = 100


class GoneError(Exception):
    """Orthanc does not have what it was asked for."""


class Rest(Protocol):
    """Orthanc's REST interface, and the place where it keeps a number for us."""

    def get(self, path: str) -> bytes:
        """Return what is at ``path``; GoneError if there is nothing."""

    def put(self, path: str, content: str) -> None:
        """Write ``content`` to ``path``; GoneError if that is about nothing."""

    def position(self) -> int | None:
        """Return the number that was kept, if there is one."""

    def keep_position(self, number: int) -> None:
        """Keep a number in Orthanc's database."""


@dataclass(slots=True)
class Feed:
    """What is still to be handed in, and how far the log of changes was read."""

    rest: Rest
    hatch: HatchFolder
    read_to: int
    """Number of the last change that was read."""
    kept: int
    """Number that the database has: what came before it is handed in."""
    pending: dict[str, dict[str, int]] = field(default_factory=dict)
    """By study: its instances, and the number of the change that each arrived by."""

    @classmethod
    def begun(cls, rest: Rest, hatch: HatchFolder, *, feeds_existing: bool) -> Feed:
        """Return a feed that goes on where the last one stopped.

        The first one of all starts with what arrives from now on, or with everything.
        """
        position = rest.position()
        if position is None:
            position = 0 if feeds_existing else _json(rest, "/changes?last")["Last"]
            rest.keep_position(position)
            logger.warning("what arrives after change %d is handed in", position)
        return cls(rest, hatch, position, position)

    def turn(self) -> int:
        """Hand in what has become stable; return how many instances it was.

        Raises:
            OSError: The hatch cannot be written. Nothing is lost: the next turn tries.
        """
        self._read()
        count = 0
        for study in list(self.pending):
            if self._is_stable(study):
                count += self._hand_in(self.pending[study])
                del self.pending[study]
        self._keep()
        return count

    def _read(self) -> None:
        done = False
        while not done:
            page = _json(self.rest, f"/changes?since={self.read_to}&limit={_AT_ONCE}")
            for change in page["Changes"]:
                if change["ChangeType"] == "NewInstance":
                    self._note(change["ID"], change["Seq"])
            self.read_to, done = max(self.read_to, page["Last"]), page["Done"]

    def _note(self, instance: str, number: int) -> None:
        if self._was_handed_in(instance):
            return
        try:
            study = _json(self.rest, f"/instances/{instance}/study")["ID"]
        except GoneError:
            logger.warning("deleted before it was handed in: instance=%s", instance)
            return
        self.pending.setdefault(study, {})[instance] = number

    def _was_handed_in(self, instance: str) -> bool:
        try:
            self.rest.get(f"/instances/{instance}/metadata/{HANDED_IN}")
        except GoneError:
            return False
        return True

    def _is_stable(self, study: str) -> bool:
        try:
            return bool(_json(self.rest, f"/studies/{study}")["IsStable"])
        except GoneError:
            return True  # each of its instances is missed by name

    def _hand_in(self, instances: dict[str, int]) -> int:
        count = 0
        for instance in list(instances):
            try:
                self.hatch.put([self.rest.get(f"/instances/{instance}/file")])
                self.rest.put(f"/instances/{instance}/metadata/{HANDED_IN}", "1")
                count += 1
            except GoneError:
                logger.warning("deleted before it was handed in: instance=%s", instance)
            del instances[instance]
        return count

    def _keep(self) -> None:
        """Keep how far all is handed in."""
        owed = [number for each in self.pending.values() for number in each.values()]
        done = min(owed) - 1 if owed else self.read_to
        if done != self.kept:
            self.rest.keep_position(done)
            self.kept = done


def _json(rest: Rest, path: str) -> Any:
    return json.loads(rest.get(path))
