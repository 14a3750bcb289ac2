"""A connection of the page, which ends unless a request arrives on it in good time.

uvicorn ends a connection on which nothing comes after an answer, and waits for ever for a
first request, and for the rest of any. Here the head of a request has to be there after
some seconds, and its body after as long as a slow line takes for so much; what trickles
gets no more time. So those who only connect do not keep others out, and of one address
only so many connections are kept. Certificates, views and people are not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from dicom_node.addressing import address_of, is_loopback, network

if TYPE_CHECKING:
    import asyncio

AT_ONCE: Final = 256
"""Connections of everybody."""
OF_ONE: Final = 32
"""Connections of one address; of loopback, and of proxies, as many as there are."""
_SLOWEST: Final = 128 << 10
"""Bytes of a body that arrive in a second, at least."""


class Deadlined(H11Protocol):
    """HTTP/1.1, as uvicorn speaks it, with an end to waiting."""

    head_s: ClassVar[float] = 10.0
    body_s: ClassVar[float] = 20.0
    """And longer for what is large."""

    _awaited = ""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, or hang up on who has too many connections."""
        super().connection_made(transport)
        if self._is_too_many():
            transport.abort()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._await("")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, and see what is to come yet."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request; while nothing comes of it, as uvicorn does."""
        self._await("")
        super().on_response_complete()
        if self.conn.trailing_data[0] or not self.cycle.response_complete:
            self._look()

    def _is_too_many(self) -> bool:
        host = self.client[0] if self.client else ""
        if is_loopback(host) or self._is_proxy(host):
            return False
        own = [one for one in self.connections if isinstance(one, Deadlined)]
        return sum(1 for one in own if one.client and one.client[0] == host) > OF_ONE

    def _is_proxy(self, host: str) -> bool:
        named = self.config.forwarded_allow_ips if self.config.proxy_headers else []
        return any(address_of(host) in network("web: proxies", one) for one in named)

    def _look(self) -> None:
        """See what is waited for, and until when."""
        if self.transport.is_closing():
            self._await("")
        elif self.cycle is None or self.cycle.response_complete:
            self._await("head", self.head_s)
        elif self.cycle.more_body:
            self._await("body", self.body_s + self._length() / _SLOWEST)
        else:
            self._await("")

    def _length(self) -> int:
        """Return how long the body is, as the head says; of what is not told, nothing."""
        told = dict(self.headers).get(b"content-length", b"")
        return int(told) if told.isdigit() else 0

    def _await(self, what: str, seconds: float = 0.0) -> None:
        """Wait for something, no longer if it is waited for already."""
        if what == self._awaited:
            return
        self._awaited = what
        if self._deadline is not None:
            self._deadline.cancel()
        # A transport that is closed in order would first send what nobody reads.
        self._deadline = (
            self.loop.call_later(seconds, self.transport.abort) if what else None
        )
