"""Who is logged in: cookies that the page signs, and forgets nothing by restarting. Pure.

A cookie says who, since when, and when he was last seen; its HMAC is under a key that
follows from the site's keys. It ends after a time without a request, after a time
whatever happens, when the person's entry is changed, and when he logs out: that is
remembered until the process ends, and the cookie's own time is over soon after.

Each session has a token that its forms carry: a request that changes something and comes
from another page does not know it (CSRF).
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from dicom_node.web.rights import Right, Role, rights_of

if TYPE_CHECKING:
    from collections.abc import Callable

_PURPOSES: Final = (b"session", b"token")
_LONGEST: Final = 4096
RENEWED_AFTER: Final = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One person at one browser."""

    id: str
    name: str
    """Empty for somebody who has not logged in."""
    roles: tuple[str, ...]
    is_local: bool
    """Whether the file of people says who he is; else a provider did."""
    changed: str
    """What that entry said when he logged in."""
    since: str
    seen: str

    @property
    def rights(self) -> frozenset[Right]:
        """Return what he may do."""
        return rights_of(map(Role, self.roles))


class Sessions:
    """Makes cookies, and reads them again."""

    def __init__(
        self,
        key: bytes,
        idle: timedelta,
        longest: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what it needs.

        Args:
            key: Nobody else has it.
            idle: How long without a request.
            longest: How long at all.
            clock: Returns the time, aware.
        """
        self._keys = {
            purpose: hmac.digest(key, b"miadmark/v1/web/" + purpose, "sha256")
            for purpose in _PURPOSES
        }
        self._idle, self._longest, self._clock = idle, longest, clock
        self._ended: dict[str, datetime] = {}

    def begun(
        self, name: str, roles: tuple[Role, ...], *, is_local: bool, changed: str
    ) -> Session:
        """Return a new session; nothing of an earlier one is in it."""
        now = self._clock().isoformat()
        return Session(
            id=secrets.token_hex(16),
            name=name,
            roles=tuple(role.value for role in roles),
            is_local=is_local,
            changed=changed,
            since=now,
            seen=now,
        )

    def stranger(self) -> Session:
        """Return a session of somebody who has not logged in: for the form to do so."""
        return self.begun("", (), is_local=True, changed="")

    def cookie(self, session: Session) -> str:
        """Return a session as a cookie."""
        body = base64.urlsafe_b64encode(json.dumps(asdict(session)).encode()).decode()
        return f"{body}.{self._mac(b'session', body)}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie; None if it is not ours, or over."""
        body, _, mac = cookie.rpartition(".")
        if len(cookie) > _LONGEST or not hmac.compare_digest(
            mac.encode(), self._mac(b"session", body).encode()
        ):
            return None
        values = json.loads(base64.urlsafe_b64decode(body))
        session = Session(**{**values, "roles": tuple(values["roles"])})
        now = self._clock()
        over = (
            now - datetime.fromisoformat(session.seen) > self._idle
            or now - datetime.fromisoformat(session.since) > self._longest
        )
        return None if over or session.id in self._ended else session

    def seen(self, session: Session) -> Session | None:
        """Return a session as it goes on now; None if its cookie may stay as it is."""
        now = self._clock()
        if now - datetime.fromisoformat(session.seen) < RENEWED_AFTER:
            return None
        return replace(session, seen=now.isoformat())

    def end(self, session: Session) -> None:
        """End a session, in whichever browsers its cookie is."""
        now = self._clock()
        kept = {one: at for one, at in self._ended.items() if now - at < self._longest}
        self._ended = {**kept, session.id: now}

    def token(self, session: Session) -> str:
        """Return what forms of a session carry."""
        return self._mac(b"token", session.id)

    def is_token(self, session: Session, token: str) -> bool:
        """Say whether a form is one of the session's."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())

    def _mac(self, purpose: bytes, text: str) -> str:
        key = self._keys[purpose]
        return hmac.digest(key, text.encode("utf-8", "replace"), "sha256").hex()
