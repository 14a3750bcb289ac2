"""``keys``: the keys of this site, and those of others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.commands.state import add_state, state_in

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    keys = commands.add_parser("keys", help="the keys of this site")
    verbs = keys.add_subparsers(required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make them")
    init.set_defaults(run=_init)
    export = verbs.add_parser(
        "export-recipient", help="write the site file that others need"
    )
    export.add_argument("--name", default="site", help="how others will call this site")
    export.add_argument("--out", type=Path, metavar="FILE", help="else standard output")
    export.set_defaults(run=_export)
    listing = verbs.add_parser("list", help="show what there is; nothing secret")
    listing.set_defaults(run=_list)
    trust = verbs.add_parser("trust", help="open what another site has sealed")
    trust.add_argument("file", type=Path, metavar="FILE")
    trust.set_defaults(run=partial(_add, as_recipient=False, as_trusted=True))
    recipient = verbs.add_parser("add-recipient", help="seal to another site as well")
    recipient.add_argument("file", type=Path, metavar="FILE")
    recipient.set_defaults(run=partial(_add, as_recipient=True, as_trusted=False))
    for verb in (init, export, listing, trust, recipient):
        add_state(verb)


def _init(options: argparse.Namespace) -> int:
    from dicom_node.keys.file import KeyFolder

    folder = options.state / "keys"
    made = KeyFolder.make(folder)
    print(f"made keys in {folder}; fingerprint {made.site('').fingerprint}")
    print("Back this folder up now: what is sealed to it opens with nothing else.")
    return 0


def _export(options: argparse.Namespace) -> int:
    text = state_in(options.state).keys().site(options.name).to_text()
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, "utf-8")
        print(f"wrote {options.out}: public keys, nothing secret")
    return 0


def _list(options: argparse.Namespace) -> int:
    keys = state_in(options.state).keys()
    print(f"this site: fingerprint {keys.site('').fingerprint}")
    for part, sites in (("sealed to", "recipients"), ("trusted", "trusted")):
        for site in keys.sites(sites):
            print(f"{part}: {site.name}, fingerprint {site.fingerprint}")
    return 0


def _add(options: argparse.Namespace, *, as_recipient: bool, as_trusted: bool) -> int:
    from dicom_node.keys.file import read_site

    site = read_site(options.file)
    keys = state_in(options.state).keys()
    keys.add_site(site, as_recipient=as_recipient, as_trusted=as_trusted)
    print(f"{site.name}: compare its fingerprint by telephone: {site.fingerprint}")
    return 0
