"""``grant``: who may have originals."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.authorising import Grant, Terms

_KEYS: Final = (
    *("grant", "mode", "ae_titles", "purposes", "fingerprint", "address"),
    *("not_after", "standing", "proposed_by"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    grant = commands.add_parser("grant", help="who may have originals")
    verbs = grant.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="propose a grant; somebody else approves it")
    _add_terms(add)
    add.set_defaults(run=_add)
    approve = verbs.add_parser("approve", help="agree to a grant that another proposed")
    approve.add_argument("id", type=int)
    approve.set_defaults(run=_approve)
    listing = verbs.add_parser("list", help="show every grant ever proposed")
    listing.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="take a grant back")
    revoke.add_argument("id", type=int)
    revoke.set_defaults(run=_revoke)
    explain = verbs.add_parser(
        "explain", help="say which condition fails, grant by grant"
    )
    explain.add_argument(
        "--release", choices=["sent", "desk", "direct"], default="sent"
    )
    explain.add_argument("--ae-title", required=True)
    explain.add_argument("--certificate", type=Path, metavar="FILE")
    explain.add_argument("--address", default="", metavar="HOST:PORT")
    explain.add_argument("--insecure-route", action="store_true")
    explain.add_argument("--purpose", default="treatment")
    explain.add_argument("--sop-class", default="", metavar="UID")
    explain.add_argument("--study", default="", metavar="UID")
    explain.set_defaults(run=_explain)
    rule = verbs.add_parser("rule", help="how many people a new grant takes")
    rule.add_argument("--approvers", type=int, required=True, metavar="N")
    rule.set_defaults(run=_rule)
    for verb in (add, approve, listing, revoke, explain, rule):
        add_state(verb)
    for verb in (add, approve, listing, revoke):
        add_json(verb, *_KEYS, is_long=False)
    add_json(explain, "grant", "says", "granted", is_long=False)
    add_json(rule, "approvers", is_long=False)


def _add_terms(add: argparse.ArgumentParser) -> None:
    add.add_argument("--ae-title", action="append", required=True)
    to = add.add_mutually_exclusive_group(required=True)
    to.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the receiver's, PEM"
    )
    to.add_argument(
        "--insecure-address",
        metavar="HOST:PORT",
        help="a receiver without TLS: whoever answers there gets originals",
    )
    add.add_argument(
        "--site",
        type=Path,
        metavar="FILE",
        help="the receiver's site file, where it asks the desk or opens directly",
    )
    add.add_argument(
        "--direct",
        action="store_true",
        help="it opens what is marked from now on without asking, for ever",
    )
    add.add_argument("--purpose", action="append", help="(treatment)")
    add.add_argument("--sop-class", action="append", default=[], metavar="UID")
    add.add_argument("--study", action="append", default=[], metavar="UID")
    add.add_argument("--days", type=int, default=365)


def _add(options: argparse.Namespace) -> int:
    if options.insecure_address:
        terminal.complain(
            "a grant without TLS: whoever answers at that address gets originals", ""
        )
    state = state_in(options.state)
    keys = state.keys()
    terms = _terms(options)
    with state.grants(keys) as grants:
        number = grants.propose(terms, by=terminal.user(), now=terminal.now())
        grant = grants.grant(number)
    _write_down(options, "proposed", grant)
    report = Report(options)
    report.tell(
        f"grant {number} for {', '.join(terms.ae_titles)}, {options.days} days",
        **_facts(grant),
    )
    if options.direct:
        report.say(
            "Whoever can open an object by it today can open that object for ever."
        )
    if not grant.is_approved:
        report.say(
            f"It counts once another person agrees: miadmark grant approve {number}"
        )
    return 0


def _terms(options: argparse.Namespace) -> Terms:
    from dicom_node.authorising import GrantMode, Terms
    from dicom_node.keys.site import read_site

    recipient = ""
    if options.site is not None:
        encoded = read_site(options.site).recipient.encoded
        recipient = base64.b64encode(encoded).decode("ascii")
    now = terminal.now()
    try:
        return Terms(
            mode=GrantMode.DIRECT if options.direct else GrantMode.MEDIATED,
            ae_titles=tuple(options.ae_title),
            purposes=tuple(options.purpose or ["treatment"]),
            not_before=now,
            not_after=now + timedelta(days=options.days),
            fingerprint=_fingerprint_in(options.certificate),
            address=options.insecure_address or "",
            recipient=recipient,
            sop_classes=tuple(options.sop_class),
            studies=tuple(options.study),
        )
    except (ValueError, OverflowError) as error:
        raise NodeError(str(error)) from error


def _fingerprint_in(file: Path | None) -> str:
    from cryptography import x509

    from dicom_node.grants import fingerprint

    if file is None:
        return ""
    try:
        return fingerprint(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise NodeError(f"{file} is no certificate (PEM)") from error


def _approve(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    with state.grants(state.keys()) as grants:
        grant = grants.approve(options.id, by=terminal.user(), now=terminal.now())
    _write_down(options, "approved", grant)
    Report(options).tell(f"grant {grant.id}: {_standing(grant)}", **_facts(grant))
    return 0


def _revoke(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    with state.grants(state.keys()) as grants:
        grant = grants.revoke(options.id, by=terminal.user(), now=terminal.now())
    _write_down(options, "revoked", grant)
    report = Report(options)
    said = f"grant {grant.id} is revoked; what was sent before stays sent"
    report.tell(said, **_facts(grant))
    if grant.terms.mode.value == "direct":
        report.say(
            "What was marked while it held can still be opened by it: it is direct."
        )
    return 0


def _list(options: argparse.Namespace) -> int:
    state, report = state_in(options.state), Report(options)
    with state.grants(state.keys()) as grants:
        for grant in grants.all():
            terms = grant.terms
            to = f"key {terms.fingerprint}" if terms.fingerprint else terms.address
            report.tell(
                f"{grant.id}: {terms.mode}, {', '.join(terms.ae_titles)}, {to}, "
                f"{', '.join(terms.purposes)}, {_standing(grant)}, "
                f"proposed by {grant.proposed_by}",
                **_facts(grant),
            )
    return 0


def _explain(options: argparse.Namespace) -> int:
    from dicom_node.authorising import Release, Request, Verdict, explain

    state = state_in(options.state)
    keys = state.keys()
    request = Request(
        release=Release(options.release),
        tenant=keys.ring.tenant,
        own_tenant=keys.ring.tenant,
        ae_title=options.ae_title,
        fingerprint=_fingerprint_in(options.certificate),
        address=options.address,
        is_insecure_route=options.insecure_route,
        purpose=options.purpose,
        sop_class_uid=options.sop_class,
        study_instance_uid=options.study,
    )
    with state.grants(keys) as grants:
        explained = explain(grants.all(), request, terminal.now())
    report = Report(options)
    for grant, verdict in explained:
        report.tell(f"{grant.id}: {verdict}", grant=grant.id, says=str(verdict))
    is_granted = any(verdict is Verdict.YES for _, verdict in explained)
    report.tell("granted" if is_granted else "not granted", granted=is_granted)
    return 0 if is_granted else 1


def _rule(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    if options.approvers < 1:
        raise NodeError("at least one person has to agree")
    keys = state.keys()
    with state.grants(keys) as grants:
        grants.set_approvals(options.approvers, by=terminal.user(), now=terminal.now())
        approvals = grants.approvals
    state.audit(keys).add(
        Event.GRANT, did="rule", approvers=options.approvers, by=terminal.user()
    )
    report = Report(options)
    report.tell(f"new grants take {approvals} people", approvers=approvals)
    if approvals != options.approvers:
        report.say("Fewer it takes once as many people as before have said the same.")
    return 0


def _facts(grant: Grant) -> dict[str, object]:
    """Return a grant as JSON, under the names of ``_KEYS``."""
    terms = grant.terms
    return {
        "grant": grant.id,
        "mode": terms.mode.value,
        "ae_titles": list(terms.ae_titles),
        "purposes": list(terms.purposes),
        "fingerprint": terms.fingerprint,
        "address": terms.address,
        "not_after": terms.not_after.isoformat(),
        "standing": _standing(grant),
        "proposed_by": grant.proposed_by,
    }


def _standing(grant: Grant) -> str:
    if grant.revoked_by:
        return f"revoked by {grant.revoked_by}"
    if not grant.is_approved:
        return "waits for approval"
    return f"in force until {grant.terms.not_after:%Y-%m-%d}"


def _write_down(options: argparse.Namespace, did: str, grant: Grant) -> None:
    state = state_in(options.state)
    state.audit(state.keys()).add(
        Event.GRANT,
        did=did,
        grant=grant.id,
        ae_titles=", ".join(grant.terms.ae_titles),
        by=terminal.user(),
    )
