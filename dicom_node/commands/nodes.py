"""``nodes``: several nodes of one site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.keys import add_root, root_of
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    nodes = commands.add_parser("nodes", help="several nodes of one site")
    verbs = nodes.add_subparsers(required=True, metavar="VERB")
    ask = verbs.add_parser("ask", help="at a new node: ask to join a site")
    ask.add_argument("--name", required=True, help="of this node")
    ask.add_argument("--out", type=Path, required=True, metavar="FILE")
    add_root(ask)
    ask.set_defaults(run=_ask)
    admit = verbs.add_parser("admit", help="at the lead: let a node join")
    admit.add_argument("file", type=Path, metavar="FILE", help="what it has asked with")
    admit.add_argument(
        "--fingerprint",
        required=True,
        help="of its request, as whoever stands before it has read it to you",
    )
    admit.set_defaults(run=_admit)
    dismiss = verbs.add_parser("dismiss", help="at the lead: tell a node nothing more")
    dismiss.add_argument("name")
    dismiss.set_defaults(run=_dismiss)
    issue = verbs.add_parser("issue", help="at the lead: write the site's charter")
    issue.add_argument("--out", type=Path, required=True, metavar="FILE")
    issue.set_defaults(run=_issue)
    join = verbs.add_parser("join", help="at a new node: take its site's keys")
    join.add_argument("source", help="the charter: a file, or https://")
    join.add_argument(
        "--fingerprint",
        required=True,
        help="of the site (miadmark keys list at the lead), compared by telephone",
    )
    join.add_argument(
        "--ca", type=Path, metavar="FILE", help="of the https server, PEM"
    )
    join.set_defaults(run=_join)
    take = verbs.add_parser("take", help="at a node: take a newer charter now")
    take.add_argument("source", help="a file, or https://")
    take.add_argument("--ca", type=Path, metavar="FILE")
    take.set_defaults(run=_take)
    listing = verbs.add_parser("list", help="which nodes there are")
    listing.set_defaults(run=_list)
    search = verbs.add_parser(
        "search", help="at the lead: say by what search this site's marks are found"
    )
    search.add_argument("--config", type=Path, required=True, metavar="FILE")
    search.set_defaults(run=_search)
    lead = verbs.add_parser("lead", help="at a node, once the lead is gone for good")
    lead.add_argument("--why", required=True, metavar="TEXT", help="for the audit")
    lead.set_defaults(run=_lead)
    for verb in (ask, admit, dismiss, issue, join, take, listing, lead):
        add_state(verb)
    add_json(ask, "out", "fingerprint", is_long=False)
    for verb in (admit, dismiss):
        add_json(verb, "node", "is_admitted", is_long=False)
    add_json(issue, "out", "charter", "nodes", "signed_by", is_long=False)
    for verb in (join, take):
        # A web server may take its time.
        add_json(verb, "charter", "node", "is_new", is_long=True)
    add_json(
        listing,
        *("node", "leads", "charter", "others", "search", "says"),
        is_long=False,
    )
    add_json(lead, "node", is_long=False)
    add_json(search, "search", is_long=True)


def _ask(options: argparse.Namespace) -> int:
    from dicom_node.keys.joining import ask

    asking = ask(options.state, options.name, root_of(options))
    options.out.write_bytes(asking.to_bytes())
    report = Report(options)
    report.tell(
        f"wrote {options.out}: public; bring it to the lead",
        out=str(options.out),
        fingerprint=asking.fingerprint,
    )
    report.say(f"Read to whoever admits it, by telephone: {asking.fingerprint}")
    return 0


def _admit(options: argparse.Namespace) -> int:
    from dicom_node.keys.joining import Asking

    asking = Asking.read(options.file)
    if asking.fingerprint != options.fingerprint.strip().lower():
        raise NodeError(
            f"{options.file} has the fingerprint {asking.fingerprint}",
            hint="Whoever has exchanged it would be sent the site's keys. Ask at the "
            "node again, by telephone.",
        )
    state = state_in(options.state)
    keys = state.keys()
    keys.nodes.admit(asking.name, asking.recipient)
    state.audit(keys).add(
        Event.KEYS,
        did="node admitted",
        node=asking.name,
        fingerprint=asking.fingerprint,
        by=terminal.user(),
    )
    report = Report(options)
    said = f"{asking.name} is admitted; the next charter has the keys for it"
    report.tell(said, node=asking.name, is_admitted=True)
    report.say(
        "It will open and sign whatever this site does. Then: miadmark nodes issue"
    )
    return 0


def _dismiss(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    keys = state.keys()
    keys.nodes.dismiss(options.name)
    state.audit(keys).add(
        Event.KEYS, did="node dismissed", node=options.name, by=terminal.user()
    )
    report = Report(options)
    said = f"{options.name} gets no later charter; what it has, it keeps"
    report.tell(said, node=options.name, is_admitted=False)
    report.say(
        "If it may be in other hands: miadmark keys rotate epoch, signing, identity;",
        "keys end-epochs; nodes issue. Marks and new names follow from a key that can",
        "not be another: whoever has it tells them for ever.",
    )
    return 0


def _issue(options: argparse.Namespace) -> int:
    from dicom_node.following import issue

    state = state_in(options.state)
    keys = state.keys()
    number = issue(state, keys, options.out, terminal.now(), by=terminal.user())
    others, signer = list(keys.nodes.others()), keys.site("").fingerprint
    names = ", ".join(others) or "no other node yet"
    report = Report(options)
    report.tell(
        f"wrote {options.out}: charter {number}, with keys for {names}",
        out=str(options.out),
        charter=number,
        nodes=others,
        signed_by=signer,
    )
    report.say(f"signed by {signer}")
    return 0


def _join(options: argparse.Namespace) -> int:
    from dicom_node.charter_source import fetched
    from dicom_node.keys.joining import join

    with Report(options).working("fetching the charter"):
        content = fetched(options.source, options.ca)
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    join(options.state, content, options.fingerprint, terminal.now(), options.source)
    return _take(options)


def _take(options: argparse.Namespace) -> int:
    from dicom_node.charter_source import Known, fetched
    from dicom_node.following import take_from

    state, moment = state_in(options.state), terminal.now()
    keys = state.keys()
    report = Report(options)
    with report.working("fetching the charter"):
        content = fetched(options.source, options.ca)
    taken = take_from(state, keys, content, options.source, moment)
    if taken is None:
        number, name = keys.nodes.number, keys.nodes.name
        said = f"charter {number} is taken already"
        report.tell(said, charter=number, node=name, is_new=False)
        return 0
    Known(*taken, moment).keep(state.folder)
    said = f"charter {taken[0]} is taken; this node is {keys.nodes.name}"
    report.tell(said, charter=taken[0], node=keys.nodes.name, is_new=True)
    return 0


def _list(options: argparse.Namespace) -> int:
    from dicom_node.charter_source import Known

    state = state_in(options.state)
    nodes = state.keys().nodes
    role = "follows" if nodes.taken else "leads"
    known = Known.of(state.folder)
    lines = known.lines(terminal.now()) if known is not None else []
    report = Report(options)
    report.tell(
        f"this node: {nodes.name}, which {role}; charter {nodes.number}",
        node=nodes.name,
        leads=not nodes.taken,
        charter=nodes.number,
        others=list(nodes.others()),
        search=nodes.search,
        says=lines,
    )
    report.say(
        *lines,
        *(f"node: {name}" for name in nodes.others()),
        f"search: {nodes.search or 'the lead has not said'}",
    )
    return 0


def _search(options: argparse.Namespace) -> int:
    from dicom_node.config_file import load
    from dicom_node.finders import cluster_search, finder_of
    from dicom_node.sameness import keep_search

    config = load(options.config)
    state = state_in(config.node.state)
    state.keys().nodes.require_lead()
    node = config.node
    report = Report(options)
    with (
        report.working("trying the search"),
        cluster_search(
            config.cluster, node.weights, node.marking, state.folder
        ) as there,
    ):
        search = (
            there or finder_of(node.weights, node.marking, node.search_threads)
        ).sameness
    keep_search(state.folder, search)
    report.tell(search, search=search)
    report.say("Nodes whose search is another mark nothing, once a charter has this.")
    return 0


def _lead(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    keys = state.keys()
    keys.nodes.become_lead()
    state.audit(keys).add(
        Event.KEYS, did="became lead", reason=options.why, by=terminal.user()
    )
    report = Report(options)
    said = f"{keys.nodes.name} leads now: see that no other node does, and that the"
    report.tell(said, node=keys.nodes.name)
    report.say(
        "configuration here says publish, and not source; then: miadmark nodes issue"
    )
    return 0
