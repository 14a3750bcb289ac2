"""Routes: what they mean, holding one, and which ones a file would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from dicom_node.audit import Event
from dicom_node.elements import Limits
from dicom_node.errors import NodeError
from dicom_node.instance import OpenInstance
from dicom_node.passing import instead
from dicom_node.queue.order import HeldRoute
from dicom_node.review import route_line
from dicom_node.route import Explained, Facts, explain
from dicom_node.web.guarded import Guarded
from dicom_node.web.rights import Right
from dicom_node.web.site import Call, to

if TYPE_CHECKING:
    from starlette.responses import Response


def routes(call: Call) -> Response:
    """Show every route."""
    return _shown(call)


def explained(call: Call) -> Response:
    """Show which routes a file would take. It is read from memory, and not kept."""
    if not call.upload:
        raise NodeError("there is no file", hint="Choose one, then: Explain.")
    config = call.site.config
    instance = OpenInstance.of(call.upload, Limits())
    called = call.form.get("called") or config.node.ae_title
    facts = Facts(
        identity=instance.identity(),
        attributes=instance.attributes(*config.matched_tags),
        calling=call.form.get("calling", ""),
        called=called,
    )
    call.write_down(Event.VIEWED, "explained", study=facts.identity.study_instance_uid)
    told = explain(config.routes, facts)
    return _shown(
        call,
        told=[(each, instead(each.route, instance)) for each in told],
        is_answered=called in config.called_ae_titles,
    )


def hold(call: Call) -> Response:
    """Let the jobs of a route wait."""
    name, why = _named(call), call.form.get("why", "")
    if not why:
        raise NodeError("nothing says why", hint="It is kept in the audit.")
    if call.site.config.route(name) is None:
        raise NodeError("there is no such route")
    call.write_down(Event.ROUTE, "held", route=name, why=why)
    with call.site.queue() as queue:
        held = HeldRoute(name, call.session.name, why[:200], call.site.clock())
        if not queue.hold_route(held):
            raise NodeError(f"{name!r} is held already")
    return to(f"/routes?done={quote(f'{name} is held')}")


def go_on(call: Call) -> Response:
    """Let them be done again."""
    name = _named(call)
    call.write_down(Event.ROUTE, "released", route=name, why=call.form.get("why", ""))
    with call.site.queue() as queue:
        if not queue.release_route(name):
            raise NodeError(
                f"nobody holds {name!r}",
                hint="Where its configuration says hold = true, change that.",
            )
    return to(f"/routes?done={quote(f'{name} goes on')}")


def _named(call: Call) -> str:
    return call.form.get("route", "")[:200]


def _shown(
    call: Call,
    told: list[tuple[Explained, str]] | None = None,
    *,
    is_answered: bool = True,
) -> Response:
    with call.site.queue() as queue:
        held = {one.route: one for one in queue.held_routes()}
    config = call.site.config
    return call.page(
        "routes.html",
        routes=[(r, route_line(r), held.get(r.name)) for r in config.routes],
        told=told,
        is_answered=is_answered,
        called=sorted(config.called_ae_titles),
    )


VIEWS: Final = (
    Guarded("GET", "/routes", routes, Right.LOOK),
    Guarded("POST", "/routes/hold", hold, Right.ACT),
    Guarded("POST", "/routes/release", go_on, Right.ACT),
    Guarded("POST", "/routes/explain", explained, Right.ACT, takes_file=True),
)
