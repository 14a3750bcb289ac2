"""The way of every request: who is it, may he, is the form ours; then a view.

Views are put on the page by :class:`Guarded` and in no other way, so there is none
without a right. A view may raise any error of this program: its sentence and its hint
are shown. Whatever else goes wrong is logged and not shown.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dicom_node.addressing import is_any
from dicom_node.audit import Event
from dicom_node.errors import AuditError, NodeError
from dicom_node.web.site import Call, to
from miadmark_core.errors import MiadMarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dicom_node.web.rights import Right
    from dicom_node.web.sessions import Session
    from dicom_node.web.site import Site

    View = Callable[[Call], Response]

logger = logging.getLogger(__name__)

COOKIE: Final = "miadmark"
MOST_FORM: Final = 64 << 10
MOST_UPLOAD: Final = 256 << 20
"""Bytes of a file to be explained."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_HSTS: Final = "max-age=31536000"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A view, and what it needs."""

    method: str
    path: str
    view: View
    right: Right | None
    """None: for anybody, logged in or not."""
    takes_file: bool = False


class _Endpoint:
    """One view behind all that is asked of a request."""

    def __init__(self, site: Site, guarded: Guarded) -> None:
        self.guarded, self._site = guarded, site
        # A file lies in memory whole: the next one waits.
        self._turn = asyncio.Semaphore(1) if guarded.takes_file else nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answered(request)
        await response(scope, receive, send)

    async def _answered(self, request: Request) -> Response:
        site, guarded = self._site, self.guarded
        session = await run_in_threadpool(session_of, site, request)
        known = session if session is not None and session.name else None
        if guarded.right is not None and known is None:
            if request.method == "GET":
                return to(f"/login?to={quote(request.url.path)}")
            return _said(site, request, 401, "you are not logged in any more")
        is_new = session is None
        session = session or site.sessions.stranger()
        call = Call(site, request, session)
        if guarded.right is not None and not call.may(guarded.right):
            return await run_in_threadpool(_refused, call, guarded)
        if request.method == "POST":
            async with self._turn:
                response = await self._posted(call)
        else:
            response = await run_in_threadpool(_viewed, call, guarded.view)
        renewed = site.sessions.seen(session) if known is not None else None
        # A cookie that is not read any more is replaced: its forms would be nobody's.
        given = session if is_new else renewed
        if given is not None and not _is_kept(response):
            keep(response, site, given)
        return response

    async def _posted(self, call: Call) -> Response:
        """Read a form, and do what it says if it is one of ours."""
        site, request, session = call.site, call.request, call.session
        try:
            form, upload = await _form(request, takes_file=self.guarded.takes_file)
        except (HTTPException, ClientDisconnect) as error:
            said = getattr(error, "detail", "it did not arrive")
            return _said(site, request, 400, str(said), call)
        if not _is_ours(site, request, session, form.get("token", "")):
            return _said(site, request, 403, "this form is not of this page", call)
        call = Call(site, request, session, form, upload)
        return await run_in_threadpool(_viewed, call, self.guarded.view)


def keep(response: Response, site: Site, session: Session) -> None:
    """Give a browser the cookie of a session."""
    response.set_cookie(
        COOKIE,
        site.sessions.cookie(session),
        httponly=True,
        samesite="strict",
        secure=site.settings.origin.startswith("https:"),
    )


def _is_kept(response: Response) -> bool:
    """Say whether a view has given, or taken away, the cookie of a session."""
    given = response.headers.getlist("set-cookie")
    return any(line.startswith(f"{COOKIE}=") for line in given)


def session_of(site: Site, request: Request) -> Session | None:
    """Return whose request it is, if he is still who he was."""
    session = site.sessions.read(request.cookies.get(COOKIE, ""))
    if session is not None and session.name and session.is_local:
        person = site.people.all().get(session.name)
        if person is None or person.changed != session.changed:
            return None
    return session


def _refused(call: Call, guarded: Guarded) -> Response:
    call.write_down(Event.ACCESS, "refused", path=call.request.url.path)
    text = f"this takes the right to {guarded.right}, which you do not have"
    return call.page("said.html", 403, title="Not for you", text=text, hint="")


def _viewed(call: Call, view: View) -> Response:
    try:
        return view(call)
    except (NodeError, MiadMarkError) as error:
        status = 503 if isinstance(error, AuditError) else 400
        title = "That did not work"
        return call.page(
            "said.html", status, title=title, text=str(error), hint=error.hint
        )
    except Exception:
        logger.exception("a page failed path=%s", call.request.url.path)
        text = "Something went wrong that nobody foresaw; the log of the node has it."
        return call.page("said.html", 500, title="An error", text=text, hint="")


def _said(
    site: Site, request: Request, status: int, text: str, call: Call | None = None
) -> Response:
    call = call or Call(site, request, site.sessions.stranger())
    return call.page("said.html", status, title="Not done", text=text, hint="")


def _is_ours(site: Site, request: Request, session: Session, token: str) -> bool:
    """Say whether a form comes from a page that this session was given."""
    origin = request.headers.get("origin")
    here = {site.settings.origin, f"{request.url.scheme}://{request.url.netloc}"}
    if origin is not None and origin not in here:
        return False
    return site.sessions.is_token(session, token)


async def _form(request: Request, *, takes_file: bool) -> tuple[dict[str, str], bytes]:
    """Return the fields of a form, and the file that was sent along.

    Raises:
        HTTPException: It is too much, or no form.
    """
    most = MOST_UPLOAD if takes_file else MOST_FORM
    length = request.headers.get("content-length", "")
    is_told = length.isdigit() and "transfer-encoding" not in request.headers
    if not is_told or int(length) > most:
        raise HTTPException(413, f"more than {most >> 10} kB, or nobody says how much")
    fields: dict[str, str] = {}
    upload = b""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() == "multipart/form-data":
        parser = _InMemory(
            request.headers,
            request.stream(),
            max_files=int(takes_file),
            max_fields=64,
            max_part_size=MOST_FORM,
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from error
    else:
        form = await request.form(max_fields=64, max_part_size=MOST_FORM)
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            upload = await value.read()
            await value.close()
        else:
            fields[name] = value.strip()
    return fields, upload


class _InMemory(MultiPartParser):
    """Reads a form, and keeps a file that comes with it from every disk."""

    spool_max_size = MOST_UPLOAD + 1


class _Headers:
    """Says to browsers with every answer what they may not do with it."""

    def __init__(self, app: ASGIApp, *, is_tls: bool) -> None:
        more = {"Strict-Transport-Security": _HSTS} if is_tls else {}
        self._app = app
        self._headers = [
            (name.lower().encode(), value.encode())
            for name, value in {**_HEADERS, **more}.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
                if not any(name == b"cache-control" for name, _ in message["headers"]):
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        await self._app(scope, receive, with_headers)


def application(site: Site, views: Sequence[Guarded]) -> Starlette:
    """Return the page, made of guarded views and of nothing else."""
    routes = [
        Route(
            one.path, _Endpoint(site, one), methods=[one.method], name=one.view.__name__
        )
        for one in views
    ]
    middleware = [
        Middleware(_Headers, is_tls=site.settings.origin.startswith("https:")),
        Middleware(
            TrustedHostMiddleware, allowed_hosts=_hosts(site), www_redirect=False
        ),
    ]

    def not_found(_: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        return PlainTextResponse("nothing is here", status)

    handlers: dict[Any, Any] = {404: not_found, 405: not_found}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _hosts(site: Site) -> list[str]:
    """Return by which names the page may be called: another's name is not ours."""
    if is_any(site.settings.bind) and not site.settings.address:
        return ["*"]
    named = site.settings.address.partition("//")[2].partition("/")[0]
    host = named if named.startswith("[") else named.partition(":")[0]
    return [
        h for h in (host, site.settings.bind, "localhost", "127.0.0.1", "[::1]") if h
    ]
