"""``keys``: the keys of this site, and those of others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit import Event
from dicom_node.commands import terminal
from dicom_node.commands.records import add_recover
from dicom_node.commands.report import Report, add_json
from dicom_node.commands.state import add_state, state_in
from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.keys.keyring import Keyring
    from dicom_node.keys.roots import MakeRoot


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    keys = commands.add_parser("keys", help="the keys of this site")
    verbs = keys.add_subparsers(required=True, metavar="VERB")
    init = verbs.add_parser("init", help="make them")
    add_root(init)
    init.set_defaults(run=_init)
    export = verbs.add_parser(
        "export-recipient", help="write the site file that others need"
    )
    export.add_argument("--name", default="site", help="how others will call this site")
    export.add_argument("--out", type=Path, metavar="FILE", help="else standard output")
    export.set_defaults(run=_export)
    new = verbs.add_parser(
        "new-identity", help="make a seed that opens by itself, and its site file"
    )
    new.add_argument("--out", type=Path, required=True, metavar="FILE")
    new.add_argument("--site", type=Path, required=True, metavar="FILE")
    new.add_argument("--name", default="site", help="how others will call it")
    new.set_defaults(run=_new_identity)
    listing = verbs.add_parser("list", help="show what there is; nothing secret")
    listing.set_defaults(run=_list)
    rotate = verbs.add_parser("rotate", help="use a fresh key from now on")
    rotate.add_argument(
        "what",
        choices=["epoch", "identity", "signing", "root"],
        nargs="?",
        default="epoch",
        help="epoch: for new records; root: seal all keys anew (%(default)s)",
    )
    rotate.set_defaults(run=_rotate)
    end = verbs.add_parser(
        "end-epochs",
        help="begin an epoch, seal all records' keys under it, destroy the older keys",
    )
    end.set_defaults(run=_end_epochs)
    rules = verbs.add_parser("rules", help="which suite is sealed with, and opened")
    rules.add_argument(
        "--suite", type=int, choices=[1, 2], help="1 classical, 2 hybrid"
    )
    rules.add_argument("--least-suite", type=int, choices=[1, 2])
    rules.set_defaults(run=_rules)
    trust = verbs.add_parser("trust", help="open what another site has sealed")
    trust.add_argument("file", type=Path, metavar="FILE")
    trust.add_argument(
        "--last-sequence",
        type=int,
        metavar="N",
        help="believe no later record: that site has given up this key",
    )
    trust.set_defaults(run=partial(_add, as_recipient=False, as_trusted=True))
    recipient = verbs.add_parser("add-recipient", help="seal to another site as well")
    recipient.add_argument("file", type=Path, metavar="FILE")
    recipient.set_defaults(
        run=partial(_add, as_recipient=True, as_trusted=False), last_sequence=None
    )
    add_recover(verbs)
    for verb, keys_of in (
        (init, ("folder", "fingerprint", "root")),
        (export, ("site", "out")),
        (new, ("out", "site")),
        (listing, ("what", "name", "kind", "version", "fingerprint", "made", "last")),
        (rotate, ("what", "version")),
        (rules, ("suite", "least_suite")),
        (trust, ("name", "fingerprint")),
        (recipient, ("name", "fingerprint")),
    ):
        add_json(verb, *keys_of, is_long=False)
    add_json(end, "epoch", is_long=True)
    for verb in (init, export, new, listing, rotate, end, rules, trust, recipient):
        add_state(verb)


def add_root(init: argparse.ArgumentParser) -> None:
    """Add options that say what keeps the root key."""
    root = init.add_argument_group(
        "where the root key is kept; else a drawn passphrase"
    )
    root.add_argument("--passphrase-file", type=Path, metavar="FILE")
    root.add_argument(
        "--pkcs11-module", type=Path, metavar="FILE", help="a token's .so"
    )
    root.add_argument("--token", metavar="LABEL", help="which token")
    root.add_argument("--pin-file", type=Path, metavar="FILE")
    root.add_argument("--transit", metavar="URL", help="Vault or OpenBao, https://...")
    root.add_argument("--transit-key", metavar="NAME", default="miadmark")
    root.add_argument("--transit-mount", metavar="PATH", default="transit")
    root.add_argument("--transit-ca", metavar="FILE", default="")
    root.add_argument("--token-file", type=Path, metavar="FILE")


def root_of(options: argparse.Namespace) -> MakeRoot:
    """Return what makes the root that options of :func:`add_root` ask for.

    Raises:
        NodeError: They ask for several, or for half of one.
    """
    from dicom_node.keys import roots

    chosen = (options.passphrase_file, options.pkcs11_module, options.transit)
    if sum(choice is not None for choice in chosen) > 1:
        raise NodeError("one root, not several")
    if options.passphrase_file is not None:
        return roots.passphrase_in(options.passphrase_file)
    if options.pkcs11_module is not None:
        if options.token is None or options.pin_file is None:
            raise NodeError("a token takes --token and --pin-file as well")
        return roots.pkcs11(
            options.pkcs11_module, options.token, "miadmark-root", options.pin_file
        )
    if options.transit is not None:
        if options.token_file is None:
            raise NodeError("a transit service takes --token-file as well")
        settings = {
            "address": options.transit,
            "key": options.transit_key,
            "mount": options.transit_mount,
        }
        if options.transit_ca:
            settings["ca"] = options.transit_ca
        return roots.transit(settings, options.token_file)
    return roots.generated_passphrase


def make_keys(state: Path, make_root: MakeRoot) -> Keyring:
    """Return keys that are made now in a state folder; the audit has that.

    Raises:
        KeyFolderError: There are keys already, or none can be made.
    """
    from dicom_node.keys.keyring import Keyring

    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = state_in(state).files / "keys"
    made = Keyring.make(folder, terminal.now(), make_root)
    state_in(state).audit(made).add(
        Event.KEYS, did="made", root=made.ring.root["kind"], by=terminal.user()
    )
    return made


def _init(options: argparse.Namespace) -> int:
    made = make_keys(options.state, root_of(options))
    folder = made.folder
    report, fingerprint = Report(options), made.site("").fingerprint
    report.tell(
        f"made keys in {folder}; fingerprint {fingerprint}",
        folder=str(folder),
        fingerprint=fingerprint,
        root=made.ring.root["kind"],
    )
    report.say(
        "Back this folder up now, and what opens it: what is sealed to it opens with",
        "nothing else. Then: miadmark recovery split, so that people can.",
    )
    if made.ring.root["kind"] == "passphrase" and "file" not in made.ring.root:
        report.say(
            f"{folder / 'passphrase'} opens it: keep that out of the same backup."
        )
    return 0


def _export(options: argparse.Namespace) -> int:
    text = state_in(options.state).keys().site(options.name).to_text()
    report = Report(options)
    if options.out is None:
        report.tell(text.removesuffix("\n"), site=text)
    else:
        options.out.write_text(text, "utf-8")
        said = f"wrote {options.out}: public keys, nothing secret"
        report.tell(said, out=str(options.out))
    return 0


def _new_identity(options: argparse.Namespace) -> int:
    import os
    from dataclasses import replace

    from dicom_node.durable import write_durably
    from miadmark_core.sealing.recipients import Identity

    if options.out.exists():
        raise NodeError(f"{options.out} is there already", hint="Choose another --out.")
    identity = Identity.of_seed(os.urandom(32))
    site = state_in(options.state).keys().site(options.name)
    site = replace(site, recipient=identity.recipient)
    write_durably(options.out, identity.seed.hex().encode("ascii") + b"\n")
    options.site.write_text(site.to_text(), "utf-8")
    said = f"wrote {options.out}: secret, keep it; and {options.site}: public"
    Report(options).tell(said, out=str(options.out), site=str(options.site))
    return 0


def _list(options: argparse.Namespace) -> int:
    keys = state_in(options.state).keys()
    ring = keys.ring
    report, own, root = Report(options), keys.site("").fingerprint, ring.root["kind"]
    report.tell(f"this site: fingerprint {own}", what="this site", fingerprint=own)
    version = keys.root.version
    said = f"root: {root}, version {version}"
    report.tell(said, what="root", kind=root, version=version)
    report.say(
        f"seals with suite {ring.suite}, opens {ring.least_suite} and up; policy "
        f"{ring.policy}",
        f"recovery key: {'yes' if ring.public.get('recovery') else 'none yet'}",
    )
    for entry in ring.keys:
        made = None if entry.is_destroyed else f"{entry.created:%Y-%m-%d}"
        report.tell(
            f"{entry.kind} {entry.version}: {f'made {made}' if made else 'destroyed'}",
            what="key",
            kind=entry.kind,
            version=entry.version,
            made=made,
        )
    for part, sites in (("sealed to", "recipients"), ("trusted", "trusted")):
        for site in keys.sites(sites):
            last = site.last_sequence
            until = "" if last is None else f", to record {last}"
            report.tell(
                f"{part}: {site.name}, fingerprint {site.fingerprint}{until}",
                what=part,
                name=site.name,
                fingerprint=site.fingerprint,
                last=last,
            )
    return 0


def _rotate(options: argparse.Namespace) -> int:
    from dicom_node.keys.ring import KeyKind

    state = state_in(options.state)
    keys = state.keys()
    if options.what == "root":
        version = keys.rotate_root()
    else:
        with state.ledger() as ledger:
            kind = KeyKind(options.what)
            version = keys.rotate(kind, terminal.now(), ledger.last_number() + 1)
            if kind is KeyKind.SIGNING:
                # Whoever signs with the old key has drawn its number before this.
                keys.end_signing(ledger.last_number())
    state.audit(keys).add(
        Event.KEYS, did="rotated", what=options.what, to=version, by=terminal.user()
    )
    if options.what == "signing":
        # An entry by the new key: the old one signs no grant any more.
        with state.grants(keys) as grants:
            grants.set_approvals(
                grants.approvals, by=terminal.user(), now=terminal.now()
            )
    report = Report(options)
    report.tell(
        f"{options.what} {version} is in use; objects that are out stay as they are",
        what=options.what,
        version=version,
    )
    report.say("Back the key folder up again.")
    if options.what in {"identity", "signing"}:
        report.say(
            "Send the new site file to the other sites, and to the holders of recovery",
            "shares beside their old one: miadmark keys export-recipient",
        )
    return 0


def _end_epochs(options: argparse.Namespace) -> int:
    from dicom_node.rewrapping import end_epochs

    state = state_in(options.state)
    keys = state.keys()
    report = Report(options)
    with state.ledger() as ledger, report.working("sealing all records anew"):
        version = end_epochs(keys, ledger, terminal.now())
    state.audit(keys).add(
        Event.KEYS, did="ended epochs", below=version, by=terminal.user()
    )
    said = f"epoch {version} has begun; the keys of those before are destroyed"
    report.tell(said, epoch=version)
    report.say(
        "Objects of those epochs now need the ledger: back it up with the key folder."
    )
    return 0


def _rules(options: argparse.Namespace) -> int:
    state = state_in(options.state)
    keys = state.keys()
    keys.set_rules(suite=options.suite, least_suite=options.least_suite)
    ring = keys.ring
    state.audit(keys).add(
        Event.KEYS,
        did="rules",
        suite=ring.suite,
        least_suite=ring.least_suite,
        policy=ring.policy,
        by=terminal.user(),
    )
    Report(options).tell(
        f"seals with suite {ring.suite}, opens {ring.least_suite} and up",
        suite=ring.suite,
        least_suite=ring.least_suite,
    )
    return 0


def _add(options: argparse.Namespace, *, as_recipient: bool, as_trusted: bool) -> int:
    from dataclasses import replace

    from dicom_node.keys.site import read_site

    site = read_site(options.file)
    if options.last_sequence is not None:
        site = replace(site, last_sequence=options.last_sequence)
    state = state_in(options.state)
    keys = state.keys()
    keys.add_site(site, as_recipient=as_recipient, as_trusted=as_trusted)
    did = "sealed to" if as_recipient else "trusted"
    state.audit(keys).add(
        Event.KEYS, did=did, site=site.fingerprint, by=terminal.user()
    )
    report = Report(options)
    report.tell(
        f"{site.name}: compare its fingerprint by telephone: {site.fingerprint}",
        name=site.name,
        fingerprint=site.fingerprint,
    )
    if as_recipient:
        report.say(
            "It opens, for ever and without asking, all that is sealed from now on."
        )
    return 0
