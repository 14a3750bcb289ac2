"""``grant``: who may have originals."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands import terminal
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    grant = commands.add_parser("grant", help="who may have originals")
    verbs = grant.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="give a grant")
    add.add_argument("--ae-title", required=True)
    to = add.add_mutually_exclusive_group(required=True)
    to.add_argument(
        "--certificate", type=Path, metavar="FILE", help="the receiver's, PEM"
    )
    to.add_argument(
        "--insecure-address",
        metavar="HOST:PORT",
        help="a receiver without TLS: whoever answers there gets originals",
    )
    add.add_argument("--days", type=int, default=365)
    add.set_defaults(run=_add)
    listing = verbs.add_parser("list", help="show every grant ever given")
    listing.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="take a grant back")
    revoke.add_argument("id", type=int)
    revoke.set_defaults(run=_revoke)
    for verb in (add, listing, revoke):
        add_state(verb)


def _add(options: argparse.Namespace) -> int:
    from cryptography import x509

    from dicom_node.grants import fingerprint

    shown = ""
    if options.certificate is not None:
        try:
            pem = options.certificate.read_bytes()
            shown = fingerprint(x509.load_pem_x509_certificate(pem))
        except (OSError, ValueError) as error:
            raise NodeError(f"{options.certificate} is no certificate (PEM)") from error
    else:
        terminal.complain(
            "a grant without TLS: whoever answers at that address gets originals", ""
        )
    with state_in(options.state).grants() as grants:
        number = grants.add(
            ae_title=options.ae_title,
            fingerprint=shown,
            address=options.insecure_address or "",
            not_after=terminal.now() + timedelta(days=options.days),
            granted_by=terminal.user(),
            now=terminal.now(),
        )
    print(f"grant {number} for {options.ae_title}, {options.days} days")
    return 0


def _list(options: argparse.Namespace) -> int:
    with state_in(options.state).grants() as grants:
        for grant in grants.all():
            to = f"key {grant.fingerprint}" if grant.fingerprint else grant.address
            state = (
                "revoked" if grant.is_revoked else f"until {grant.not_after:%Y-%m-%d}"
            )
            print(f"{grant.id}: {grant.ae_title}, {to}, {state}, by {grant.granted_by}")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    with state_in(options.state).grants() as grants:
        if not grants.revoke(
            options.id, revoked_by=terminal.user(), now=terminal.now()
        ):
            raise NodeError(
                f"there is no grant {options.id}", hint="miadmark grant list"
            )
    print(f"grant {options.id} is revoked; what was sent before stays sent")
    return 0
