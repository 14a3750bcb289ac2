"""Examples of every command: what its help, the manual and the tests show.

Each is a line as it is typed, and what it does. Files and names in them are made up.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Example(NamedTuple):
    """One line for a shell."""

    line: str
    does: str


def _of(*pairs: tuple[str, str]) -> tuple[Example, ...]:
    return tuple(Example(f"miadmark {line}".rstrip(), does) for line, does in pairs)


EXAMPLES: Final = {
    "": _of(
        ("protect study/ --out marked/", "mark a study"),
        ("restore marked/ --out original/", "and take the mark off again"),
        ("inspect marked/1.dcm", "what a file says of its mark"),
        ("serve --config node.toml", "run the node"),
        ("help protect", "more of a command, with examples"),
    ),
    "protect": _of(
        ("protect study/ --out marked/", "mark a study; keys are made on first use"),
        (
            "protect study/ --out marked/ --weak-marks send",
            "write also marks that do not mislead everybody they were tried on",
        ),
        ("protect one.dcm --out marked/ --profile logo", "a visible mark instead"),
        ("protect study/ --out marked/ --json", "an object a line for each file"),
    ),
    "restore": _of(
        ("restore marked/ --out original/", "the originals, bit for bit"),
        (
            (
                "restore received/ --out original/ --desk https://a.example:11143 "
                "--gateway 9f86d081 --ca a.pem --certificate b.pem --key b-key.pem"
            ),
            "ask the desk of the site that marked them",
        ),
    ),
    "inspect": _of(
        ("inspect marked/", "what files say of their marks; no key is needed"),
        ("inspect --leaks marked/", "what else in them shows the images"),
    ),
    "init": _of(
        (
            (
                "init node/ --role egress --marked-to RESEARCH@research.example:104 "
                "--port 11112"
            ),
            "a configuration and keys of a node that marks what leaves",
        ),
    ),
    "doctor": _of(
        ("doctor --config node.toml", "what is wrong with an installation"),
        ("doctor", "of this machine and the keys alone"),
    ),
    "backfill": _of(
        ("backfill archive/ --out protected/", "protect a folder; again goes on"),
        (
            "backfill archive/ --out protected/ --hours 'Mon-Fri 18:00-06:00'",
            "at night",
        ),
        ("backfill archive/ --node node.toml", "let a node do it, by its routes"),
    ),
    "nodes ask": _of(
        ("nodes ask --name gw2 --out gw2.ask", "at a new node: ask to join a site"),
    ),
    "nodes admit": _of(
        ("nodes admit gw2.ask --fingerprint 9f86d081", "at the lead: let it join"),
    ),
    "nodes dismiss": _of(("nodes dismiss gw2", "tell it nothing more")),
    "nodes issue": _of(
        ("nodes issue --out charter", "at the lead: write the site's charter"),
    ),
    "nodes join": _of(
        ("nodes join charter --fingerprint 9f86d081", "at the new node: take it"),
    ),
    "nodes take": _of(("nodes take charter", "at a node: take a newer one now")),
    "nodes list": _of(("nodes list", "which nodes there are")),
    "nodes search": _of(
        ("nodes search --config node.toml", "at the lead: say which search is its"),
    ),
    "nodes lead": _of(
        ("nodes lead --why 'gw1 burnt down'", "once the lead is gone for good"),
    ),
    "drain start": _of(
        (
            "drain start --by 'A. Admin' --why replaced --config node.toml",
            "take in nothing more, and send what can be",
        ),
    ),
    "drain status": _of(("drain status --config node.toml", "what is left")),
    "drain pack": _of(
        ("drain pack --to gw2 --out packed/ --config node.toml", "what is left"),
    ),
    "drain take": _of(
        (
            "drain take packed/ --receipt receipt --config node.toml",
            "at the other node: owe what was packed",
        ),
    ),
    "drain finish": _of(
        ("drain finish receipt --config node.toml", "owe no more what it has"),
    ),
    "drain cancel": _of(
        (
            "drain cancel --by 'A. Admin' --why 'not needed' --config node.toml",
            "take the node into service again",
        ),
    ),
    "keys init": _of(
        ("keys init", "a drawn passphrase beside the keys"),
        ("keys init --passphrase-file /run/secrets/miadmark", "one of your own"),
        (
            (
                "keys init --pkcs11-module /usr/lib/libsofthsm2.so --token miadmark "
                "--pin-file /run/secrets/pin"
            ),
            "a root key that stays in a token",
        ),
    ),
    "keys export-recipient": _of(
        ("keys export-recipient --name 'Site B' --out b.site", "what other sites need"),
    ),
    "keys new-identity": _of(
        (
            "keys new-identity --out seed --site b.site",
            "a seed that opens direct objects without any state",
        ),
    ),
    "keys list": _of(("keys list", "what keys there are; nothing secret")),
    "keys rotate": _of(
        ("keys rotate", "a fresh epoch key for new records"),
        ("keys rotate root", "seal all keys anew"),
    ),
    "keys end-epochs": _of(("keys end-epochs", "and destroy the older epochs' keys")),
    "keys rules": _of(
        (
            "keys rules --suite 2 --least-suite 2",
            "refuse classical records from now on",
        ),
    ),
    "keys trust": _of(("keys trust a.site", "open what another site has sealed")),
    "keys add-recipient": _of(
        ("keys add-recipient b.site", "all that is marked from now on opens there too"),
    ),
    "keys recover": _of(
        (
            (
                "keys recover marked/ --out originals/ --site kit/site.site "
                "--shares kit/share-1.txt kit/share-3.txt kit/share-5.txt"
            ),
            "originals by the shares alone: no node, no ledger, no root",
        ),
    ),
    "grant add": _of(
        (
            "grant add --ae-title ARCHIVE --certificate archive.pem --days 365",
            "propose that an archive gets originals for a year",
        ),
    ),
    "grant approve": _of(("grant approve 1", "agree to what another has proposed")),
    "grant list": _of(("grant list", "every grant ever proposed")),
    "grant revoke": _of(("grant revoke 1", "one person is enough")),
    "grant explain": _of(
        (
            "grant explain --ae-title ARCHIVE --certificate archive.pem",
            "why it gets originals, or why not",
        ),
    ),
    "grant rule": _of(("grant rule --approvers 2", "two people make a grant")),
    "recovery split": _of(
        ("recovery split --out kit/", "five shares, three of them are needed"),
        ("recovery split --out kit/ --shares 3 --threshold 2", "two of three"),
    ),
    "recovery rehearse": _of(
        (
            "recovery rehearse --shares kit/share-1.txt kit/share-3.txt kit/share-5.txt",
            "whether they still join; twice a year",
        ),
    ),
    "ledger rebuild": _of(
        ("ledger rebuild marked/", "a lost ledger, from the objects themselves"),
    ),
    "ledger shred": _of(
        ("ledger shred marked.dcm", "its original is never to be had again"),
    ),
    "ledger copy": _of(("ledger copy copied.sqlite", "for another node of this site")),
    "ledger merge": _of(
        ("ledger merge copied.sqlite", "remember what another node's does, too"),
    ),
    "audit": _of(
        ("audit", "whether all entries are there, as written"),
        ("audit --json", "all of them, one a line"),
    ),
    "audit verify": _of(
        (
            "audit verify --checkpoints /mnt/elsewhere",
            "name the first entry that is wrong, or that the end was cut off",
        ),
    ),
    "audit show": _of(
        ("audit show --event rejected --since 2026-01-31", "who was turned away"),
        ("audit show --with study=1.2.3 --last 10", "the last ten of a study"),
    ),
    "config check": _of(
        ("config check node.toml", "whether it can work, and what it means"),
        (
            "config check node.toml --against-state",
            "also what waits for routes that are gone",
        ),
    ),
    "config reload": _of(
        ("config reload --config node.toml", "have it taken now, and hear if it was"),
    ),
    "config names": _of(("config names routes node.toml", "one a line")),
    "serve": _of(
        ("serve --config node.toml", "run the node until it is told to stop"),
        ("serve --config node.toml --log-format json", "with logs for a program"),
    ),
    "status": _of(
        ("status --config node.toml", "counts, rates, room, what is held and why"),
        ("status --config node.toml --json", "all of it as one object"),
    ),
    "release": _of(
        ("release --config node.toml", "try all that is held again"),
        ("release --config node.toml 7 8", "these; also what is quarantined"),
    ),
    "discard": _of(("discard --config node.toml 7", "give job 7 up, unsent")),
    "selftest": _of(("selftest", "an object there and back on loopback")),
    "demo": _of(("demo --out demo-output/", "the story with pictures: demo.html")),
    "route explain": _of(
        (
            "route explain one.dcm --config node.toml --calling CT1",
            "which routes a file takes, and why no others",
        ),
    ),
    "route hold": _of(
        (
            (
                "route hold 'research, marked' --by 'A. Admin' --why 'archive moves' "
                "--config node.toml"
            ),
            "its jobs wait; instances are still taken in",
        ),
    ),
    "route release": _of(
        (
            (
                "route release 'research, marked' --by 'A. Admin' --why moved "
                "--config node.toml"
            ),
            "they are done again",
        ),
    ),
    "metrics": _of(
        ("metrics --config node.toml", "figures for Prometheus, beside a node"),
    ),
    "web": _of(
        ("web --config node.toml", "the page, beside a node or of one that is stopped"),
    ),
    "web user add": _of(
        (
            "web user add anna --role officer --config node.toml",
            "let somebody in; asks for a password",
        ),
    ),
    "web user remove": _of(
        ("web user remove anna --config node.toml", "let her in no more"),
    ),
    "web user list": _of(("web user list --config node.toml", "who may log in")),
    "break-glass": _of(
        (
            (
                "break-glass 17 --by 'Dr. A' --why 'trauma, receiver cannot read it' "
                "--config node.toml"
            ),
            "send job 17 as it came, UNMARKED",
        ),
    ),
    "priority": _of(
        ("priority 17 18 500 --config node.toml", "jobs 17 and 18 before others"),
        ("priority --study 1.2.3 500 --config node.toml", "all of a study"),
    ),
    "bench": _of(
        ("bench seal", "sealing and opening, beside SHA-256"),
        ("bench mark", "marks in a batch, beside one by one"),
        ("bench relay --objects 300 --rounds 3", "a relay, beside Orthanc"),
        ("bench soak --objects 20000 --poison 0.01", "hours of trouble, all accounted"),
    ),
    "capacity measure": _of(
        ("capacity measure --out here.json", "what an instance costs on this machine"),
    ),
    "capacity plan": _of(
        ("capacity plan", "1, 10 and 100 nodes, by what was measured elsewhere"),
        (
            "capacity plan --constants here.json --nodes 4 --cores 16 --instances 300",
            "four of these",
        ),
    ),
    "state backup": _of(
        ("state backup /mnt/backup/today", "keys included; the node may run"),
    ),
    "state restore": _of(
        (
            "state restore /mnt/backup/today --state /var/lib/miadmark-again",
            "a new state folder of it",
        ),
    ),
    "state move": _of(
        ("state move --config node.toml", "ledger and grants into its database"),
    ),
    "train surrogates": _of(
        ("train surrogates --data DATA --out PACK", "the shipped ones, made again"),
        (
            "train surrogates --data STUDIES --out PACK --modality MR --body-part LEG",
            "ones of this site, from a folder without labels",
        ),
    ),
    "train victims": _of(
        ("train victims --data DATA --out VICTIMS", "whom marks are scored against"),
    ),
    "train generators": _of(
        ("train generators --data DATA --out PACK", "what the profile fast draws with"),
    ),
    "evaluate": _of(
        ("evaluate --data DATA --out RESULTS", "results.json and report.html"),
        (
            "evaluate --data DATA --out RESULTS --suite full --engine standard",
            "every attacker",
        ),
    ),
    "completion": _of(
        (
            "completion bash > ~/.local/share/bash-completion/completions/miadmark",
            "for bash, from the next login on",
        ),
        ("completion zsh > ~/.zfunc/_miadmark", "for zsh, where ~/.zfunc is in fpath"),
        (
            "completion fish > ~/.config/fish/completions/miadmark.fish",
            "for fish",
        ),
    ),
    "help": _of(
        ("help keys rotate", "what miadmark keys rotate --help prints"),
        ("help exit-status", "what a command's exit status says"),
    ),
    "man": _of(
        ("man ~/.local/share/man/man1", "then: man miadmark-protect"),
    ),
}
"""By command, as it is typed after ``miadmark``."""
