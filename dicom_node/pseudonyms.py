"""How the audit calls a patient: by the same pseudonym each time, and never by name.

PS3.15 wants a patient's ID in what it says of transfers. Unless the site wants that too
(``[audit] patients``), a keyed digest stands in its place: entries of one patient belong
together, and only who has the site's keys can tell which patient that is.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dicom_node.instance import OpenInstance

LABEL: Final = b"audit patients"
"""What the key is derived for."""
_PATIENT_ID: Final = 0x00100020
_ISSUER: Final = 0x00100021
_CHARACTER_SET: Final = 0x00080005
_LONGEST: Final = 64
"""Characters of an ID: PS3.5 6.2, VR LO."""


@dataclass(frozen=True, slots=True)
class Patients:
    """Calls patients what the site wants them to be called."""

    key: bytes
    """Derived by the site's keyring for :data:`LABEL`."""
    is_open: bool = False
    """Whether the ID itself is wanted."""

    def of(self, instance: OpenInstance) -> str:
        """Return whose an instance is; empty if it does not say."""
        found = instance.attributes(_CHARACTER_SET, _PATIENT_ID, _ISSUER)
        number = str(found.get("PatientID") or "").strip()
        issuer = str(found.get("IssuerOfPatientID") or "").strip()
        if not number:
            return ""
        return number[:_LONGEST] if self.is_open else self.pseudonym(number, issuer)

    def pseudonym(self, number: str, issuer: str = "") -> str:
        """Return what stands in the place of an ID."""
        message = f"{len(issuer)} {issuer}{number}".encode()
        return f"p-{hmac.digest(self.key, message, 'sha256')[:12].hex()}"
