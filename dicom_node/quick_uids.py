"""UIDs that were looked at before, for whoever negotiates: pynetdicom looks at each anew.

A caller names a hundred classes, each with a transfer syntax or more, and negotiating
makes a UID of each name a dozen times, each time with a look whether it is one: forty
milliseconds of computing an association, as much as eight objects take. Many modalities
have an association for each object. Here the names are remembered that are as PS3.5 9.1
wants them. Whatever is out of the ordinary is left to pynetdicom, and so is what it says
of that in its log.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from pydicom.uid import UID
from pynetdicom import pdu_items, pdu_primitives, presentation
from pynetdicom.presentation import PresentationContext
from pynetdicom.utils import set_uid

_PLAIN: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_LONGEST: Final = 64
"""Characters (PS3.5 9.1); so it is known how much all that is remembered takes."""
_REMEMBERED: Final = 4096
_add: Final = PresentationContext.add_transfer_syntax


def install() -> None:
    """Let pynetdicom negotiate so, from now on, in this process."""
    for module in (pdu_items, pdu_primitives, presentation):
        vars(module)["set_uid"] = uid_of
    PresentationContext.add_transfer_syntax = (  # type: ignore[method-assign]
        add_transfer_syntax  # type: ignore[assignment]
    )


def uid_of(value: Any, name: str, *flags: bool, **more: bool) -> UID | None:
    """Return what :func:`pynetdicom.utils.set_uid` does, which has the same arguments."""
    return _remembered(value) or set_uid(value, name, *flags, **more)


def add_transfer_syntax(context: PresentationContext, syntax: Any) -> None:
    """Add a transfer syntax to a context as its own method does."""
    known = _remembered(syntax)
    if known is None or not _is_syntax(known):
        _add(context, syntax)
    elif known not in context.transfer_syntax:
        context.transfer_syntax.append(known)


def _remembered(value: object) -> UID | None:
    """Return the UID that a value is, if it is a plain one."""
    if not isinstance(value, (str, bytes)) or len(value) > _LONGEST:
        return None
    return _plain(value)


@lru_cache(maxsize=_REMEMBERED)
def _plain(value: str | bytes) -> UID | None:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return UID(text) if _PLAIN.fullmatch(text) else None


@lru_cache(maxsize=_REMEMBERED)
def _is_syntax(known: UID) -> bool:
    return known.is_private or known.is_transfer_syntax
