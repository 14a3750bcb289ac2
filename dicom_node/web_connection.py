"""A connection to one web server: HTTP/1.1, over TLS or not, one request after another.

Who answers is known before anything is asked, and asked is nobody else: a connection that
is lost is not made again in silence, and redirections are not followed. An answer is read
within a time and a size.

Nothing here knows what is asked, or judges what is answered.
"""

from __future__ import annotations

import http.client
import ssl
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from cryptography import x509

from dicom_node.errors import BrokenOffError, SendInterruptedError, UnreachableError
from dicom_node.grants import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dicom_node.destination import Destination

_PIECE: Final = 256 * 1024
_MOST_ANSWER: Final = 16 << 20
"""Bytes of an answer that are read."""


class Answer(NamedTuple):
    """What a server says."""

    status: int
    retry_after: str | None
    """Header of that name."""
    content: bytes


class WebConnection:
    """Opened when it is needed. One thread at a time."""

    def __init__(self, destination: Destination) -> None:
        """Prepare; nothing is opened yet.

        Args:
            destination: The server, and how to get at it.
        """
        self._destination = destination
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close it, if it is open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def open(self) -> str:
        """Return who is at the other end, opening it if it is not.

        Returns:
            :func:`~dicom_node.grants.fingerprint` of the certificate that the server has
            shown; empty without TLS.

        Raises:
            SendInterruptedError: The server cannot be reached, or is another.
        """
        connection = self._connection
        if connection is None or not _is_open(connection):
            self.close()
            connection = self._connected()
            # Or it would open another by itself, and nobody would look who answers there.
            connection.auto_open = False
            self._connection = connection
        if not isinstance(connection.sock, ssl.SSLSocket):
            return ""
        shown = connection.sock.getpeercert(binary_form=True)
        assert shown is not None  # the handshake would have failed
        return fingerprint(x509.load_der_x509_certificate(shown))

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: Iterable[bytes] | None = None,
    ) -> Answer:
        """Return what is answered to a request, on the connection that is open.

        Args:
            method: Of HTTP.
            path: At the server.
            headers: Content-Length is among them if there is ``content``.
            content: Sent piece by piece. What it raises comes out here, and ends the
                connection.

        Raises:
            SendInterruptedError: It broke, or nothing was answered in time; the server
                may have done what it was asked or not.
        """
        connection = self._connection
        if connection is None:
            raise SendInterruptedError(
                f"{self._destination.named}: the connection is closed"
            )
        try:
            try:
                connection.request(method, path, content, headers)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                # It may have said no before it has read everything.
                answer = self._answered(connection)
                self.close()
                return answer
            return self._answered(connection)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise BrokenOffError(
                f"{self._destination.named}: the connection broke: {said(error)}",
                hint="It may have the instances; they are sent again to be sure.",
            ) from error
        except BaseException:
            self.close()  # half a request is on it
            raise

    def receive(
        self,
        path: str,
        headers: Mapping[str, str],
        opened: Callable[[str], Callable[[bytes], object]],
    ) -> Answer:
        """Return what is answered to GET, without its content, on the open connection.

        What a server hands out may be large: it is handed on piece by piece, each within
        the time that the destination has for an answer.

        Args:
            path: At the server.
            headers: Of the request.
            opened: Called with the Content-Type where the answer is 200; returns what
                takes the pieces. What it raises comes out here.

        Raises:
            SendInterruptedError: It broke, or nothing more came in time.
        """
        connection = self._connection
        if connection is None:
            raise SendInterruptedError(
                f"{self._destination.named}: the connection is closed"
            )
        not_taken: OSError | None = None
        try:
            connection.request("GET", path, None, headers)
            if connection.sock is not None:
                connection.sock.settimeout(self._destination.answer_timeout_s)
            with connection.getresponse() as response:
                take: Callable[[bytes], object] = _nowhere
                if response.status == 200:
                    take = opened(response.getheader("Content-Type") or "")
                while piece := response.read1(_PIECE):
                    try:
                        take(piece)
                    except OSError as error:
                        not_taken = error  # a full disk is no broken connection
                        raise
                answer = Answer(response.status, response.getheader("Retry-After"), b"")
            if connection.sock is None:
                self.close()  # as the server has announced
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if error is not_taken:
                raise
            raise BrokenOffError(
                f"{self._destination.named}: the connection broke: {said(error)}"
            ) from error
        except BaseException:
            self.close()  # half an answer is on it
            raise
        return answer

    def _answered(self, connection: http.client.HTTPConnection) -> Answer:
        assert connection.sock is not None  # or nothing would have been asked
        wait_s = self._destination.answer_timeout_s
        connection.sock.settimeout(wait_s)
        deadline, content = time.monotonic() + wait_s, b""
        with connection.getresponse() as response:
            while piece := response.read1(_PIECE):
                content += piece
                if len(content) > _MOST_ANSWER or time.monotonic() > deadline:
                    raise http.client.HTTPException("the answer does not end")
            answer = Answer(response.status, response.getheader("Retry-After"), content)
        if connection.sock is None:
            self.close()  # as the server has announced
        else:
            connection.sock.settimeout(self._destination.timeout_s)
        return answer

    def _connected(self) -> http.client.HTTPConnection:
        destination = self._destination
        parts = destination.url_parts
        host, timeout_s = parts.hostname or "", destination.timeout_s
        connection: http.client.HTTPConnection
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout_s, context=self._tls()
            )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise UnreachableError(
                f"{destination.named} cannot be reached, or its certificate is not "
                f"valid: {said(error)}",
                hint="curl -v, or openssl s_client -connect host:port, says more.",
            ) from error
        return connection

    def _tls(self) -> ssl.SSLContext:
        destination = self._destination
        try:
            context = ssl.create_default_context(cafile=destination.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if destination.certificate is not None:
                # Without a password of ours, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(
                    destination.certificate, destination.key, lambda: b""
                )
        except OSError as error:
            raise SendInterruptedError(
                f"{destination.named}: its certificates cannot be used: {said(error)}",
                hint="ca, certificate and key are files in PEM; the key is not "
                "encrypted.",
            ) from error
        return context


def bearer(destination: Destination) -> dict[str, str]:
    """Return the header that holds a destination's token; nothing if it has none.

    Raises:
        SendInterruptedError: The file cannot be read, or holds no token.
    """
    file = destination.token_file
    if file is None:
        return {}
    named = destination.named
    try:
        token = file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise SendInterruptedError(
            f"{named}: {file} cannot be read",
            hint="It holds a bearer token, and nothing else.",
        ) from error
    if not token or not token.isprintable() or " " in token:
        raise SendInterruptedError(
            f"{named}: {file} holds no token",
            hint="It holds a bearer token, and nothing else.",
        )
    return {"Authorization": f"Bearer {token}"}


def _nowhere(_: bytes) -> None:
    """Let a piece go by: of an answer that is no, nothing is needed."""


def said(error: Exception) -> str:
    """Return what went wrong, without anything that a server has sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _is_open(connection: http.client.HTTPConnection) -> bool:
    """Say whether a connection is open, as far as the server has said by now.

    Between two requests it says nothing, unless that it leaves.
    """
    sock = connection.sock
    if sock is None:
        return False
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        sock.settimeout(timeout)
        return True
    except OSError:
        return False
    return False
