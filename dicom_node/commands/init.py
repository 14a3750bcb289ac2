"""``init``: a node's configuration and keys, and what to type next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dicom_node.commands import terminal
from dicom_node.commands.following import following
from dicom_node.commands.interview import asked, can_ask, interview, yes_or_no
from dicom_node.commands.keys import add_root, make_keys, root_of
from dicom_node.commands.report import Report, add_json
from dicom_node.errors import ConfigError, NodeError

if TYPE_CHECKING:
    import argparse

    from dicom_node.blueprint import Archive, Blueprint, Desk, Role
    from dicom_node.doctor.finding import Named

FILE: Final = "node.toml"
_CHECKS: Final = (
    "python",
    "packages",
    "certificates",
    "disk",
    "clock",
    "ports",
    "peers",
)
_LATER: Final = frozenset({"peers"})
"""What may still come right by itself: a peer need not be there yet."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    init = commands.add_parser(
        "init", help="a configuration and keys for a new node, and what to type next"
    )
    init.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help=f"where {FILE} is to lie; made if need be",
    )
    init.add_argument(
        "--role",
        choices=["egress", "receiving", "both"],
        help="egress marks what leaves, receiving takes marks off what comes",
    )
    init.add_argument("--ae-title", metavar="TITLE", help="of the node (MIADMARK)")
    init.add_argument(
        "--marked-to", metavar="AE@HOST:PORT", help="who gets what is marked"
    )
    init.add_argument(
        "--originals-to", metavar="AE@HOST:PORT", help="who gets originals"
    )
    init.add_argument(
        "--originals-ca",
        metavar="FILE",
        help="what that one's certificate is signed by; without it, no TLS",
    )
    init.add_argument(
        "--insecure",
        action="store_true",
        help="whoever answers at that one's address may have originals, without TLS",
    )
    init.add_argument(
        "--state", metavar="DIR", help="keys, ledger, queue (miadmark-state beside it)"
    )
    init.add_argument(
        "--profile",
        choices=["standard", "fast", "strong", "logo"],
        default="standard",
        help="of the mark (%(default)s)",
    )
    _add_door(init)
    _add_desk(init)
    add_root(init)
    init.add_argument(
        "--overwrite", action="store_true", help=f"write over another {FILE}"
    )
    init.add_argument(
        "--anyway", action="store_true", help="go on where something is found wrong"
    )
    init.add_argument(
        "--yes",
        action="store_true",
        help="ask nothing (so does --json); what is not said is as it is",
    )
    add_json(
        init,
        *("config", "state", "fingerprint", "wrote_config", "made_keys", "findings"),
        "next",
        is_long=True,
    )
    init.set_defaults(run=_init)


def _add_door(init: argparse.ArgumentParser) -> None:
    door = init.add_argument_group("where it listens; on this machine, without TLS")
    door.add_argument("--port", type=int, metavar="N", help="(11112)")
    door.add_argument("--bind", metavar="ADDRESS", help="(127.0.0.1)")
    for name, what in (
        ("--certificate", "what it shows, PEM"),
        ("--key", "of that certificate, PEM, not encrypted"),
        ("--client-ca", "what callers' certificates are signed by"),
    ):
        door.add_argument(name, metavar="FILE", default="", help=what)
    door.add_argument(
        "--plaintext", action="store_true", help="others may reach it without TLS"
    )


def _add_desk(init: argparse.ArgumentParser) -> None:
    desk = init.add_argument_group("whose desk is asked for keys; else they come along")
    desk.add_argument("--desk", metavar="URL", help="https://host:port")
    desk.add_argument("--gateway", metavar="FINGERPRINT", help="of that site's keys")
    for name in ("--desk-ca", "--desk-certificate", "--desk-key"):
        desk.add_argument(name, metavar="FILE", default="")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be made, and where."""

    blueprint: Blueprint
    path: Path
    """Of the configuration."""
    state: Path


def _init(options: argparse.Namespace) -> int:
    if can_ask() and not (options.yes or options.json):
        interview(options)
    plan = _plan(options)
    make_root = root_of(options)
    has_keys = _require_room(plan, is_told=options.overwrite)
    report = Report(options)
    with report.working("looking at this machine"):
        found = _looked(plan)
    for one in found:
        report.say(*_lines(one))
    _require_fine(found, options)

    if not has_keys:
        make_keys(plan.state, make_root)
    fingerprint = _fingerprint(plan.state)
    was_written = _write(plan, fingerprint)
    steps = following(plan.blueprint, plan.path, plan.state)
    report.tell(
        f"{'wrote' if was_written else 'kept'} {plan.path}",
        config=str(plan.path),
        state=str(plan.state),
        fingerprint=fingerprint,
        wrote_config=was_written,
        made_keys=not has_keys,
        findings=[
            {
                "about": one.about,
                "level": one.finding.level.value,
                "says": one.finding.says,
                "hint": one.finding.hint,
            }
            for one in found
        ],
        next=[command for command, _ in steps],
    )
    report.say(
        f"{'kept' if has_keys else 'made'} keys in {plan.state / 'keys'}; fingerprint",
        f"  {fingerprint}",
        "Back the key folder up, apart from what opens it.",
    )
    for number, (command, why) in enumerate(steps):
        report.say(f"{'next' if not number else 'then'}: {command}\n      {why}")
    return 0


def _plan(options: argparse.Namespace) -> _Plan:
    """Return what options ask for, if a configuration can say it.

    Raises:
        NodeError: They leave something out, or ask for what cannot work.
    """
    from dicom_node.blueprint import Blueprint, Door, Role, Side
    from dicom_node.config_file import read
    from dicom_node.usability import require_usable

    if options.role is None:
        raise NodeError(
            "nobody has said what the node is for",
            hint="--role egress, receiving or both.",
        )
    role = Role(options.role)
    blueprint = Blueprint(
        role=role,
        ae_title=options.ae_title or "MIADMARK",
        state=_from(options.folder, options.state or "") or "miadmark-state",
        profile=options.profile,
        door=Door(
            bind=options.bind or "127.0.0.1",
            port=11112 if options.port is None else options.port,
            certificate=_from(options.folder, options.certificate),
            key=_from(options.folder, options.key),
            client_ca=_from(options.folder, options.client_ca),
            is_plain=options.plaintext,
        ),
        research=Side.of(options.marked_to) if options.marked_to else None,
        archive=_archive(options, role),
        desk=_desk(options),
    )
    path = options.folder.absolute() / FILE
    config = read(_text(blueprint, ""), path)
    require_usable(config)
    return _Plan(blueprint, path, config.node.state)


def _archive(options: argparse.Namespace, role: Role) -> Archive | None:
    from dicom_node.blueprint import Archive, Side

    if not role.strips or not options.originals_to:
        return None
    if options.insecure and options.originals_ca:
        raise NodeError("either --originals-ca or --insecure, not both")
    if not options.insecure and not options.originals_ca:
        raise NodeError(
            "nobody knows who answers there: originals go to a receiver with a "
            "certificate",
            hint="--originals-ca FILE; or --insecure, and whoever answers gets them.",
        )
    return Archive(
        side=Side.of(options.originals_to),
        ca=_from(options.folder, options.originals_ca or ""),
        is_insecure=options.insecure,
    )


def _desk(options: argparse.Namespace) -> Desk | None:
    from dicom_node.blueprint import Desk

    parts = (options.desk_ca, options.desk_certificate, options.desk_key)
    if not options.desk:
        return None
    if not (options.gateway and all(parts)):
        raise NodeError(
            "a desk takes --gateway, --desk-ca, --desk-certificate and --desk-key as well"
        )
    ca, certificate, key = (_from(options.folder, part) for part in parts)
    return Desk(
        address=options.desk,
        gateway=options.gateway,
        ca=ca,
        certificate=certificate,
        key=key,
    )


def _from(folder: Path, file: str) -> str:
    """Return how a configuration in a folder names a file that was named from here."""
    if not file:
        return file
    path, beside = Path(file).absolute(), folder.absolute()
    return str(path.relative_to(beside) if path.is_relative_to(beside) else path)


def _text(blueprint: Blueprint, fingerprint: str) -> bytes:
    from dicom_node.blueprint import written

    return written(blueprint, fingerprint).encode("utf-8")


def _require_room(plan: _Plan, *, is_told: bool) -> bool:
    """Return whether there are keys, if nothing would be written over untold.

    Raises:
        NodeError: Another configuration is there, or keys that do not open.
    """
    from dicom_node.keys.keyring import Keyring

    has_keys = Keyring.exists(plan.state / "keys")
    fingerprint = _fingerprint(plan.state) if has_keys else ""
    if plan.path.exists() and not is_told:
        before = plan.path.read_bytes()
        if not has_keys or before != _text(plan.blueprint, fingerprint):
            raise ConfigError(
                f"{plan.path} is there, and says something else",
                hint="Nothing was changed. --overwrite writes over it; or name another "
                "folder.",
            )
    return has_keys


def _looked(plan: _Plan) -> list[Named]:
    """Return what there is to say of this machine and of peers."""
    from dicom_node.config_file import read
    from dicom_node.doctor.case import Case
    from dicom_node.doctor.examination import examined

    config = read(_text(plan.blueprint, ""), plan.path)
    case = Case(
        state=plan.state, now=terminal.now(), config_path=plan.path, config=config
    )
    return [_softened(one) for one in examined(case, _CHECKS)]


def _softened(one: Named) -> Named:
    """Return a finding; what need not be right yet is no more than worth knowing."""
    from dicom_node.doctor.finding import Level

    if one.about in _LATER and one.finding.level is Level.WRONG:
        return one._replace(finding=one.finding._replace(level=Level.NOTE))
    return one


def _require_fine(found: list[Named], options: argparse.Namespace) -> None:
    """Return if nothing is wrong that keeps a node from working, or nobody minds.

    Raises:
        NodeError: Something is.
    """
    from dicom_node.doctor.finding import Level

    wrong = [one for one in found if one.finding.level is Level.WRONG]
    if not wrong or options.anyway:
        return
    if can_ask() and not (options.yes or options.json):
        if asked("Go on all the same", "no", yes_or_no):
            return
        raise NodeError("nothing was made")
    raise NodeError(
        f"{wrong[0].about}: {wrong[0].finding.says}",
        hint=f"{wrong[0].finding.hint} (Nothing was made; --anyway goes on.)".strip(),
    )


def _write(plan: _Plan, fingerprint: str) -> bool:
    """Write the configuration, unless it is there already; return whether it was."""
    from dicom_node.durable import make_folder, write_durably

    content = _text(plan.blueprint, fingerprint)
    if plan.path.exists() and plan.path.read_bytes() == content:
        return False
    make_folder(plan.path.parent)
    write_durably(plan.path, content, 0o640)
    return True


def _fingerprint(state: Path) -> str:
    from dicom_node.keys.keyring import Keyring

    return Keyring(state / "keys").site("").fingerprint


def _lines(one: Named) -> list[str]:
    """Return what there is to say of a finding; nothing, where all is well."""
    from dicom_node.doctor.finding import Level

    level, says, hint = one.finding
    if level is Level.OK:
        return []
    return [
        f"{level.value:5} {one.about}: {says}",
        *([f"      {hint}"] if hint else []),
    ]
