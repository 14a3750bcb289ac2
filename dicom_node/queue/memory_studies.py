"""Studies that are not complete yet in a queue in memory, and the jobs that wait so long.

When a study is complete is decided elsewhere: see :mod:`dicom_node.queue.study`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dicom_node.queue.job import JobState
from dicom_node.queue.memory_jobs import MemoryJobs
from dicom_node.queue.study import NOT_YET, Stage, Study, arrived

if TYPE_CHECKING:
    from datetime import datetime

    from dicom_node.queue.arrival import Arrival, Owed


@dataclass
class MemoryStudies(MemoryJobs):
    """See :class:`dicom_node.queue.study.Studies`."""

    _studies: dict[tuple[str, str], Study] = field(default_factory=dict)

    def complete_studies(self, now: datetime) -> list[Study]:
        """Let the jobs of studies be done; see the protocol."""
        due = [study for study in self.gathering() if study.due <= now]
        for study in due:
            complete = study._replace(stage=Stage.COMPLETE, due=now)
            self._studies[study[:2]] = complete
            self._let_go(complete, now)
        return due

    def gathering(self) -> list[Study]:
        """Return the studies whose jobs wait for more; see the protocol."""
        open_ones = [s for s in self._studies.values() if s.stage is not Stage.COMPLETE]
        return sorted(open_ones, key=lambda study: study.due)

    def forget_studies(self, before: datetime) -> int:
        """Forget studies that were complete; see the protocol."""
        gone = [
            key
            for key, study in self._studies.items()
            if study.stage is Stage.COMPLETE and study.due < before
        ]
        for key in gone:
            del self._studies[key]
        return len(gone)

    def _due(self, to: Owed, arrival: Arrival, now: datetime) -> datetime:
        study = arrival.study_instance_uid
        if to.gathering is None or not study:
            return now
        known = self._studies.get((to.route, study))
        after = arrived(known, to.route, study, to.gathering, now)
        self._studies[to.route, study] = after
        if after.stage is not Stage.COMPLETE:
            return NOT_YET
        self._let_go(after, now)
        return now

    def _let_go(self, study: Study, now: datetime) -> None:
        for owed in self._jobs:
            is_its = (owed.to.route, self._study(owed)) == study[:2]
            if is_its and owed.state is JobState.WAITING and owed.not_before == NOT_YET:
                owed.not_before = now
