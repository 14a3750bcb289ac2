"""The names that objects of a PACS have here: ``study/series/instance.dcm``, UIDs all.

A study of which less is listed than it is said to have is a name too, which fails.
"""

from __future__ import annotations

import re
from typing import Final

from dicom_node.errors import BackfillError, SourceError

_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")
_SUFFIX: Final = ".dcm"


def name_of(study: str, series: str, instance: str) -> str:
    """Return the name of an object; the inverse of :func:`uids_in`.

    Raises:
        SourceError: What a PACS has called a UID is none.
    """
    uids = (study, series, instance)
    for uid in uids:
        require_uid(uid)
    return f"{'/'.join(uids)}{_SUFFIX}"


def uids_in(name: str) -> tuple[str, str, str]:
    """Return the UIDs of study, series and instance.

    Raises:
        BackfillError: It names a study alone, as one that is not listed whole is named.
    """
    if "/" not in name:
        raise BackfillError(
            "not all that is said to be in this study is listed",
            hint="Does the source cut answers short, or hide what this user may not see?",
        )
    study, series, instance = name.removesuffix(_SUFFIX).split("/")
    return study, series, instance


def are_fewer(listed: int, said: str) -> bool:
    """Say whether less is listed than a study is said to have; empty: it is not said."""
    return said.isdecimal() and listed < int(said)


def require_uid(uid: str) -> str:
    """Return a UID from outside (PS3.5 9.1), which is about to be part of a path.

    Raises:
        SourceError: It is none.
    """
    if not is_uid(uid):
        raise SourceError(
            "the archive lists something under what is no UID",
            hint="Nothing is left out in silence: find it there, or narrow --dates.",
        )
    return uid


def is_uid(text: str) -> bool:
    """Say whether that is a UID (PS3.5 9.1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None
