"""What the pages of a node stand on: its state, who is there, what is written down."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse

from dicom_node import __version__
from dicom_node.vitals import Vitals
from dicom_node.web.attempts import LoginLimits
from dicom_node.web.oidc import provider_of
from dicom_node.web.people import PEOPLE, People
from dicom_node.web.rights import Right
from dicom_node.web.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response

    from dicom_node.audit import Event
    from dicom_node.config import Config
    from dicom_node.keys.keyring import Keyring
    from dicom_node.queue.history import History
    from dicom_node.queue.sql_queue import SqlQueue
    from dicom_node.state import State
    from dicom_node.watching import Web
    from dicom_node.web.oidc import Provider
    from dicom_node.web.sessions import Session

_LONGEST_FACT: Final = 200


class Site:
    """One node, as its pages know it."""

    def __init__(
        self,
        config: Config,
        settings: Web,
        state: State,
        keyring: Keyring,
        clock: Callable[[], datetime],
    ) -> None:
        """Keep what pages need.

        Args:
            config: That the node goes by.
            settings: Of the page.
            state: The node's.
            keyring: The site's keys.
            clock: Returns the time, aware.
        """
        self.config, self.settings, self.state = config, settings, state
        self.keyring, self.clock = keyring, clock
        self.audit = state.audit(keyring)
        self.people = People(state.folder / PEOPLE)
        self.vitals = Vitals(config, state, clock)
        self.sessions = Sessions(
            keyring.derive(b"web"),
            timedelta(minutes=settings.idle_minutes),
            timedelta(hours=settings.longest_hours),
            clock,
        )
        self.limits = LoginLimits()
        self.provider: Provider | None = provider_of(settings, clock)
        self._templates = Environment(
            loader=PackageLoader("dicom_node.web"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"moment": _moment, "span": _span, "times": _times}

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a template filled in; whatever is put in is escaped."""
        return self._templates.get_template(template).render(
            **values, version=__version__, Right=Right
        )

    @contextmanager
    def history(self) -> Iterator[History]:
        """Open what people are shown of the queue, for one request."""
        with closing(self.state.history()) as history:
            yield history

    @contextmanager
    def queue(self) -> Iterator[SqlQueue]:
        """Open the queue, for one request that changes something."""
        with closing(self.state.queue(self.config.passed)) as queue:
            yield queue


@dataclass(frozen=True, slots=True)
class Call:
    """One request of one person."""

    site: Site
    request: Request
    session: Session
    form: Mapping[str, str] = field(default_factory=dict)
    upload: bytes = b""
    """What a file that was sent along holds."""

    def may(self, right: Right) -> bool:
        """Say whether the person may do something."""
        return right in self.session.rights

    def asked(self, name: str, otherwise: str = "") -> str:
        """Return a value of the query, spaces at its ends left out."""
        return self.request.query_params.get(name, otherwise).strip()[:_LONGEST_FACT]

    def number(self, name: str, otherwise: float) -> float:
        """Return a finite number of the query."""
        try:
            value = float(self.asked(name))
        except ValueError:
            return otherwise
        return value if abs(value) < 1e9 else otherwise

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        values |= {
            "call": self,
            "session": self.session,
            "token": self.site.sessions.token(self.session),
            "node": self.site.config.node.ae_title,
            "path": self.request.url.path,
            "done": self.asked("done"),
        }
        return HTMLResponse(self.site.text(template, values), status)

    def write_down(self, event: Event, did: str, **facts: str | int) -> None:
        """Put an act into the audit, with who it was; durable when this returns.

        Raises:
            AuditError: It cannot be: then nothing is done or shown.
        """
        cut = {
            k: v[:_LONGEST_FACT] if isinstance(v, str) else v for k, v in facts.items()
        }
        self.site.audit.add(event, did=did, by=self.session.name, where="web", **cut)


def to(path: str) -> Response:
    """Send a browser on to a page of this site."""
    return RedirectResponse(path, 303)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _span(seconds: float | None) -> str:
    """Return how long something is, as people say it."""
    if seconds is None:
        return ""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            smaller = {"d": (3600, "h"), "h": (60, "min"), "min": (1, "s")}[name]
            return f"{whole} {name} {rest // smaller[0]} {smaller[1]}"
    return f"{seconds:.0f} s"


def _times(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")
