"""In and out: the form to log in, the provider, and logging out."""

from __future__ import annotations

import base64
import hmac
import json
import math
import re
import threading
from typing import TYPE_CHECKING, Final

from dicom_node.addressing import is_loopback
from dicom_node.audit import Event
from dicom_node.errors import NodeError
from dicom_node.web.guarded import COOKIE, Guarded, keep
from dicom_node.web.oidc import CALLBACK, Departure
from dicom_node.web.site import Call, to

if TYPE_CHECKING:
    from starlette.responses import Response

    from dicom_node.web.site import Site

_LEAVING: Final = "miadmark-leaving"
_LEAVING_S: Final = 600
_NOBODY_LEFT: Final = "nobody left for the provider from here, or too long ago"
_LONGEST_ADDRESS: Final = 64
_OWN_PATH: Final = re.compile(r"/[A-Za-z0-9/._-]*")
_AT_ONCE: Final = threading.BoundedSemaphore(2)
"""Passwords that are checked at once: each takes 19 MiB, and a moment."""


def login(call: Call) -> Response:
    """Show the form."""
    if call.session.name:
        return to("/")
    return _form(call, 200, "")


def enter(call: Call) -> Response:
    """Let somebody in who knows a name and its password."""
    site, now = call.site, call.site.clock()
    name, password = call.form.get("name", "")[:64], call.form.get("password", "")
    address = _address(call)
    # Of loopback only names are counted: it may be a proxy that nobody has named, and
    # everybody comes by that.
    counted = "" if is_loopback(address) else address
    if wait := site.limits.begin(name, counted, now):
        seconds = wait.total_seconds()
        response = _form(call, 429, f"Too many attempts. Wait for {seconds:.0f} s.")
        response.headers["Retry-After"] = f"{seconds:.0f}"
        return response
    with _AT_ONCE:
        person = site.people.proven(name, password)
    if person is None:
        _note(site, "refused", name, address)
        return _form(call, 403, "That is not a name and its password.")
    site.limits.succeeded(name, counted)
    roles = tuple(sorted(person.roles))
    session = site.sessions.begun(
        person.name, roles, is_local=True, changed=person.changed
    )
    _note(site, "logged in", person.name, address)
    response = to(_own(call.form.get("to", "")))
    keep(response, site, session)
    return response


def leave(call: Call) -> Response:
    """Log somebody out."""
    if call.session.name:
        call.site.sessions.end(call.session)
        call.write_down(Event.ACCESS, "logged out")
    response = to("/login")
    response.delete_cookie(COOKIE)
    return response


def depart(call: Call) -> Response:
    """Send somebody to the provider."""
    if call.site.provider is None:
        raise NodeError("there is no provider", hint="[web] oidc_issuer names one.")
    leaving, where = call.site.provider.departure()
    now = call.site.clock().timestamp()
    body = base64.urlsafe_b64encode(json.dumps([now, *leaving]).encode()).decode()
    response = to(where)
    # Lax, since who comes back comes from elsewhere; it is good for nothing else.
    response.set_cookie(
        _LEAVING,
        f"{body}.{_mac(call, body)}",
        max_age=_LEAVING_S,
        path=CALLBACK,
        httponly=True,
        samesite="lax",
        secure=call.site.settings.origin.startswith("https:"),
    )
    return response


def arrive(call: Call) -> Response:
    """Let somebody in whom the provider knows."""
    if call.site.provider is None:
        raise NodeError("there is no provider", hint="[web] oidc_issuer names one.")
    body, _, mac = call.request.cookies.get(_LEAVING, "").rpartition(".")
    if not hmac.compare_digest(mac.encode(), _mac(call, body).encode()):
        raise NodeError(_NOBODY_LEFT)
    left, *remembered = json.loads(base64.urlsafe_b64decode(body))
    ago = call.site.clock().timestamp() - left if isinstance(left, float) else math.inf
    if ago > _LEAVING_S:
        raise NodeError(_NOBODY_LEFT, hint="Log in once more.")
    leaving = Departure(*remembered)
    try:
        known = call.site.provider.arrived(leaving, dict(call.request.query_params))
    except NodeError:
        _note(call.site, "refused", "(provider)", _address(call))
        raise
    session = call.site.sessions.begun(
        known.name, known.roles, is_local=False, changed=""
    )
    _note(call.site, "logged in", known.name, _address(call))
    # No redirect: who comes from elsewhere would not have a strict cookie there yet.
    response = call.page("arrived.html")
    response.delete_cookie(_LEAVING, path=CALLBACK)
    keep(response, call.site, session)
    return response


def _form(call: Call, status: int, text: str) -> Response:
    wanted = call.asked("to") or call.form.get("to", "")
    return call.page(
        "login.html",
        status,
        text=text,
        wanted=_own(wanted),
        has_provider=call.site.provider is not None,
        name=call.form.get("name", ""),
    )


def _address(call: Call) -> str:
    """Return where a request comes from; by a proxy that is named, as that says."""
    client = call.request.client
    return client.host[:_LONGEST_ADDRESS] if client else ""


def _own(path: str) -> str:
    """Return where somebody wanted to, if it is a page of this site."""
    is_own = _OWN_PATH.fullmatch(path) and not path.startswith(("//", "/login"))
    return path if is_own else "/"


def _note(site: Site, did: str, name: str, address: str) -> None:
    site.audit.add(Event.ACCESS, did=did, by=name, address=address, where="web")


def _mac(call: Call, body: str) -> str:
    key = call.site.keyring.derive(b"web leaving")
    return hmac.digest(key, body.encode("utf-8", "replace"), "sha256").hex()


VIEWS: Final = (
    Guarded("GET", "/login", login, None),
    Guarded("POST", "/login", enter, None),
    Guarded("POST", "/logout", leave, None),
    Guarded("GET", "/login/oidc", depart, None),
    Guarded("GET", CALLBACK, arrive, None),
)
