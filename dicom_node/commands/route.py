"""``route``: which ones a file would take, and why no others; holding and releasing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dicom_node.commands import terminal
from dicom_node.commands.orders import add_who, who
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.config import Config
    from dicom_node.instance import OpenInstance
    from dicom_node.route import Explained

_KEYS: Final = (
    *("route", "taken", "action", "destinations", "not_a_picture", "conditions"),
    "says",
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    route = commands.add_parser("route", help="which way objects go")
    verbs = route.add_subparsers(required=True, metavar="VERB")
    explain = verbs.add_parser(
        "explain",
        help="which routes a file would take, and why no others; nothing is sent",
    )
    explain.add_argument("path", type=Path, metavar="DICOM-FILE")
    explain.add_argument("--config", type=Path, required=True, metavar="FILE")
    explain.add_argument(
        "--calling", default="", metavar="AE-TITLE", help="of whoever sends it"
    )
    explain.add_argument(
        "--called", metavar="AE-TITLE", help="it is sent to; the node's own by default"
    )
    add_json(explain, *_KEYS, is_long=False)
    explain.set_defaults(run=_explain)
    for name, run, text in (
        ("hold", _hold, "let the jobs of a route wait; instances are still taken in"),
        ("release", _release, "let them be done again"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("name", metavar="ROUTE")
        verb.add_argument("--config", type=Path, required=True, metavar="FILE")
        add_who(verb)
        verb.set_defaults(run=run)
        add_json(verb, "route", "did", is_long=False)


def _hold(options: argparse.Namespace) -> int:
    return _ordered(options, is_hold=True)


def _release(options: argparse.Namespace) -> int:
    return _ordered(options, is_hold=False)


def _ordered(options: argparse.Namespace, *, is_hold: bool) -> int:
    """Hold a route or release it; what is written down comes first."""
    from dicom_node.audit import Event
    from dicom_node.config_file import load
    from dicom_node.queue.order import HeldRoute

    config, name = load(options.config), options.name
    by, why = who(options)
    state = state_in(config.node.state)
    queue, route = state.queue(), config.route(name)
    try:
        held = {one.route: one for one in queue.held_routes()}
        if is_hold and route is None:
            raise NodeError(
                f"there is no route {name!r}",
                hint=f"There are: {', '.join(r.name for r in config.routes) or 'none'}.",
            )
        if is_hold and name in held:
            raise NodeError(f"{held[name].by} holds it already: {held[name].why}")
        if not is_hold and name not in held:
            raise NodeError(
                f"nobody holds {name!r}",
                hint="Where its configuration says hold = true, change that."
                if route is not None and route.hold
                else "",
            )
        did = "held" if is_hold else "released"
        facts = {"route": name, "by": by, "why": why, "account": terminal.user()}
        state.audit(state.keys()).add(Event.ROUTE, did=did, **facts)
        if is_hold:
            queue.hold_route(HeldRoute(name, by, why, terminal.now()))
        else:
            queue.release_route(name)
    finally:
        queue.close()
    report = Report(options)
    report.tell(f"{did} {name!r}", route=name, did=did)
    if not is_hold and route is not None and route.hold:
        report.say("its configuration still holds it: hold = true")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.elements import Limits
    from dicom_node.instance import OpenInstance
    from dicom_node.route import Facts, explain

    config = load(options.config)
    instance = OpenInstance.read(options.path, Limits())
    called = config.node.ae_title if options.called is None else options.called
    facts = Facts(
        identity=instance.identity(),
        attributes=instance.attributes(*config.matched_tags),
        calling=options.calling,
        called=called,
    )
    told, report = explain(config.routes, facts), Report(options)
    for each in told:
        line = _line(each, config, instance)
        report.tell(_sentence(line), **line)
    if called not in config.called_ae_titles:
        said = f"the node does not answer to {called!r}"
        report.tell(said, route=None, says=said)
        return 1
    if not any(each.is_taken for each in told):
        said = "no route takes it: refused with 0x0124"
        report.tell(said, route=None, says=said)
        return 1
    return 0


def _line(each: Explained, config: Config, instance: OpenInstance) -> dict[str, Any]:
    from dicom_node.passing import instead

    route = each.route
    return {
        "route": route.name,
        "taken": each.is_taken,
        "action": route.action.value,
        "destinations": {
            name: [one.address for one in config.members(name)]
            for name in route.destinations
        },
        "not_a_picture": instead(route, instance),
        "conditions": [
            {
                "name": c.name,
                "found": list(c.found),
                "wanted": list(c.wanted),
                "holds": c.holds,
                "says": str(c),
            }
            for c in each.conditions
        ],
    }


def _sentence(line: dict[str, Any]) -> str:
    to = (
        f"{name} ({' or '.join(addresses)})"
        for name, addresses in line["destinations"].items()
    )
    where = f"{line['route']}: {line['action']}, to {', '.join(to)}"
    if not line["taken"]:
        failed = [c["says"] for c in line["conditions"] if not c["holds"]]
        return f"not taken  {where}\n" + "\n".join(f"           {f}" for f in failed)
    if line["not_a_picture"]:
        where += f"; it holds no picture to mark: {line['not_a_picture']}"
    return f"taken      {where}"
