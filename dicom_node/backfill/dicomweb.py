"""An archive that speaks DICOMweb: asked with QIDO-RS, fetched from with WADO-RS.

PS3.18 sections 10.6 and 10.4. Objects are asked for in the transfer syntax that they are
kept in, and streamed to a file; an answer that holds another number of objects than one,
or that ends before it says so, is none. Redirections are not followed.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from email.message import Message
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlencode

from dicom_node.backfill.source import Found
from dicom_node.backfill.uid_names import are_fewer, name_of, require_uid, uids_in
from dicom_node.errors import BackfillError, SendError, SourceError
from dicom_node.web_connection import WebConnection, bearer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dicom_node.destination import Destination

PAGE: Final = 500
"""Matches that are asked for at a time; a server may answer fewer."""

_STUDY: Final = "0020000D"
_SERIES: Final = "0020000E"
_INSTANCE: Final = "00080018"
_CLASS: Final = "00080016"
_INSTANCES: Final = "00201208"
"""Number of Study Related Instances."""
_ACCEPT: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_MOST_HEAD: Final = 16 * 1024


class DicomwebSource:
    """All objects of a DICOMweb server, or those of some dates."""

    def __init__(self, server: Destination, dates: str = "") -> None:
        """Prepare; nothing is asked yet.

        Args:
            server: Where it is, and what it wants to be shown.
            dates: Of studies, as ``20190101-20191231``; empty for all.
        """
        self._server, self._dates = server, dates
        self._connection = WebConnection(server)
        self._count: int | None = None

    @property
    def address(self) -> str:
        """Return its URL, and the dates."""
        return f"{self._server.url.rstrip('/')} {self._dates}".strip()

    def count(self) -> int | None:
        """Return what the studies say that they have, once they were asked."""
        return self._count

    def listing(self) -> Iterator[Found]:
        """Yield the instances of each study."""
        wanted = {"includefield": _INSTANCES}
        if self._dates:
            wanted["StudyDate"] = self._dates
        studies = {_text(one, _STUDY): one for one in self._found("/studies", wanted)}
        counts = [_text(one, _INSTANCES) for one in studies.values()]
        if all(count.isdecimal() for count in counts):
            self._count = sum(map(int, counts))
        for study in sorted(studies):
            listed = 0
            try:
                for one in self._found(f"/studies/{require_uid(study)}/instances", {}):
                    series, instance = _text(one, _SERIES), _text(one, _INSTANCE)
                    name = name_of(study, series, instance)
                    yield Found(name, _text(one, _CLASS), instance)
                    listed += 1
            except SourceError:
                raise
            except BackfillError:
                yield Found(study)
                continue
            if are_fewer(listed, _text(studies[study], _INSTANCES)):
                yield Found(study)

    def fetch(self, found: Found, to: Path) -> None:
        """Stream an object into a file."""
        study, series, instance = uids_in(found.name)
        path = f"/studies/{study}/series/{series}/instances/{instance}"
        with to.open("xb") as stream, self._asked():
            part = _OnePart(stream)
            answer = self._connection.receive(
                self._path(path), self._headers(_ACCEPT), part.of
            )
        self._judge(answer.status)
        part.require_whole()

    def require_there(self) -> None:
        """Return if the server looks for a study."""
        with self._asked():
            answer = self._connection.ask(
                "GET",
                f"{self._path('/studies')}?limit=1",
                self._headers("application/dicom+json"),
            )
        self._judge(answer.status)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _found(
        self, path: str, wanted: Mapping[str, str]
    ) -> Iterator[dict[str, object]]:
        """Yield matches page by page, each once, until a page holds nothing new."""
        seen: set[str] = set()
        offset = 0
        while True:
            asked = urlencode({**wanted, "limit": PAGE, "offset": offset})
            with self._asked():
                answer = self._connection.ask(
                    "GET",
                    f"{self._path(path)}?{asked}",
                    self._headers("application/dicom+json"),
                )
            self._judge(answer.status)
            matches = self._matches(answer.content) if answer.status == 200 else []
            new = [(_key(one), one) for one in matches]
            new = [(key, one) for key, one in new if key not in seen]
            if not new:
                if len(matches) == PAGE:
                    raise BackfillError(
                        f"{self._server.named} answers the same {PAGE} matches again",
                        hint="It has more, and does not say which: narrow --dates.",
                    )
                return
            seen.update(key for key, _ in new)
            yield from (one for _, one in new)
            offset += len(matches)

    def _matches(self, content: bytes) -> list[dict[str, object]]:
        try:
            return [dict(one) for one in json.loads(content)]
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{self._server.named} answers what is no DICOM JSON"
            ) from error

    def _judge(self, status: int) -> None:
        """Return if the server has done what it was asked.

        Raises:
            BackfillError: This object is not to be had.
            SourceError: Nothing is, just now.
        """
        if status in {200, 204}:
            return
        if status in {404, 406, 410, 415}:
            raise BackfillError(f"the server answers {status}")
        raise SourceError(
            f"{self._server.named} answers {status}",
            hint="401 and 403: see --token-file, or --certificate and --key."
            if status in {401, 403}
            else "Its log says more.",
        )

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Accept": accept} | bearer(self._server)

    def _path(self, path: str) -> str:
        return f"{self._server.url_parts.path.rstrip('/')}{path}"

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            self._connection.open()
            yield
        except SendError as error:
            raise SourceError(str(error), hint=error.hint) from error


class _OnePart:
    """Takes the one part of a multipart answer (RFC 2046 5.1.1) out of it, in pieces."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._held = stream, b""
        self._boundary = b""
        self._state = self._before

    def of(self, content_type: str) -> _OnePart:
        """Begin, with the Content-Type that has the boundary."""
        message = Message()
        message["Content-Type"] = content_type
        boundary = message.get_param("boundary")
        if message.get_content_type() != "multipart/related" or not boundary:
            raise BackfillError("the server answers what is no multipart/related")
        self._boundary = f"\r\n--{boundary}".encode("latin-1")
        self._held = b"\r\n"  # so that the first boundary looks like the others
        return self

    def __call__(self, piece: bytes) -> None:
        """Take a piece."""
        self._held += piece
        self._state()

    def require_whole(self) -> None:
        """Return if there was one part, and its end.

        Raises:
            SourceError: The answer was cut short.
        """
        if self._state != self._after or not self._held.startswith(b"--"):
            raise SourceError("the server's answer was cut short, or has several parts")

    def _before(self) -> None:
        """Look for the end of the head of the part."""
        start = self._held.find(self._boundary)
        end = self._held.find(b"\r\n\r\n", max(start, 0))
        if start >= 0 and end >= 0:
            self._held = self._held[end + 4 :]
            self._state = self._within
            self._state()
        elif len(self._held) > _MOST_HEAD:
            raise BackfillError("the server's answer has no part")

    def _within(self) -> None:
        """Write down what cannot be the beginning of the boundary."""
        end = self._held.find(self._boundary)
        if end >= 0:
            self._stream.write(self._held[:end])
            self._held = self._held[end + len(self._boundary) :]
            self._state = self._after
            self._state()
            return
        keep = len(self._boundary) - 1
        self._stream.write(self._held[:-keep])
        self._held = self._held[-keep:]

    def _after(self) -> None:
        """Keep the first bytes: two dashes say that no other part follows."""
        self._held = self._held[:2]


def _key(match: Mapping[str, object]) -> str:
    return "/".join(_text(match, tag) for tag in (_STUDY, _SERIES, _INSTANCE))


def _text(match: Mapping[str, object], tag: str) -> str:
    """Return the first value of an attribute (PS3.18 F.2); empty if there is none."""
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""
