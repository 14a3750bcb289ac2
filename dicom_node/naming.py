"""Which references follow, and to what: by the class of what is named, or from memory.

Within a study the class decides, so that whoever comes first knows the names of what
comes later. Of other studies, and of classes that may or may not be renamed, only what
this site remembers to have renamed is renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dicom_node.redirecting import renaming
from dicom_node.sop_classes import RENAMED
from dicom_node.uids import derived_series, derived_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.elements import Elements
    from dicom_node.redirecting import Renaming
    from dicom_node.references import Reference
    from dicom_node.uids import Keyed

    Remembered = Callable[[str], str | None]
    """Returns the name under which an instance went out, if it did."""


def nothing(_: str | bytes) -> None:
    """Remember nothing: no new name, and no mark that something went out with."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How a site names what it sends."""

    keyed: Keyed
    style: str = ""
    """Of its marks: see :func:`~dicom_node.uids.derived_uid`."""
    remembered: Remembered = nothing

    def instance(self, reference: Reference, study: str) -> str | None:
        """Return the new UID of an instance that an object of ``study`` refers to.

        None if it keeps the one it has.
        """
        is_of_study = reference.study_instance_uid in {"", study}
        if is_of_study and reference.sop_class_uid in RENAMED:
            return self.derived(reference.sop_instance_uid)
        return self.remembered(reference.sop_instance_uid)

    def derived(self, source: str) -> str:
        """Return the UID of what is derived from the instance ``source``."""
        return derived_uid(self.keyed, self.style, source)

    def series(self, source: str) -> str:
        """Return the UID of the series of what is derived from the series ``source``."""
        return derived_series(self.keyed, source)

    def renaming(
        self, elements: Elements, study: str, *, keeps: frozenset[int] = frozenset()
    ) -> Renaming:
        """Return the new names for what an object of ``study`` refers to.

        Args:
            elements: Of the object.
            study: Its Study Instance UID.
            keeps: See :func:`dicom_node.redirecting.renaming`.

        Raises:
            MalformedObjectError: A sequence cannot be read, or holds too much.
        """
        return renaming(
            elements,
            lambda reference: self.instance(reference, study),
            self.series,
            keeps=keeps,
        )
