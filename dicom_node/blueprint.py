"""What a new node is to be, and the configuration that says so, with comments. Pure.

What is written is read by :mod:`dicom_node.config_file` like any other file: nothing here
decides whether it can work.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from dicom_node.addressing import check_ae_title, host_and_port
from dicom_node.errors import ConfigError


class Role(StrEnum):
    """What a site wants of its node."""

    EGRESS = "egress"
    """Marks what leaves; needs the extra ``mark``."""
    RECEIVING = "receiving"
    """Takes marks off what comes, for its own archive; needs no torch."""
    BOTH = "both"
    """Each under an AE title of its own."""

    @property
    def marks(self) -> bool:
        """Return whether something is marked."""
        return self is not Role.RECEIVING

    @property
    def strips(self) -> bool:
        """Return whether marks are taken off."""
        return self is not Role.EGRESS


class Side(NamedTuple):
    """Somebody who takes objects."""

    ae_title: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Side:
        """Return who ``AE@HOST:PORT`` names.

        Raises:
            ConfigError: It names nobody.
        """
        title, _, address = text.partition("@")
        if not address:
            raise ConfigError(f"{text!r} names no receiver", hint="AE_TITLE@HOST:PORT")
        check_ae_title(repr(text), title)
        return cls(title, *host_and_port("the receiver", address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where the node listens."""

    bind: str = "127.0.0.1"
    port: int = 11112
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    is_plain: bool = False
    """Whether it may listen without TLS where others reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Who gets originals, and how it is known that it is he."""

    side: Side
    ca: str = ""
    """File of what its certificate is signed by; without it, no TLS."""
    is_insecure: bool = False
    """Whether whoever answers at its address may have originals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Another site's desk, which is asked for the keys of what that site marked."""

    address: str
    gateway: str
    ca: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """All that is decided before there is a node. Files are relative to its own."""

    role: Role
    ae_title: str = "MIADMARK"
    strip_title: str = "MIADSTRIP"
    """What is called for marks to be taken off, where others are put on, too."""
    state: str = "miadmark-state"
    profile: str = "standard"
    door: Door = field(default_factory=Door)
    research: Side | None = None
    """Who gets what was marked."""
    archive: Archive | None = None
    desk: Desk | None = None

    def __post_init__(self) -> None:
        """Refuse what leaves out whom something goes to."""
        if self.role.marks and self.research is None:
            raise ConfigError(
                "nobody is named who gets what is marked",
                hint="--marked-to AE_TITLE@HOST:PORT",
            )
        if self.role.strips and self.archive is None:
            raise ConfigError(
                "nobody is named who gets originals",
                hint="--originals-to AE_TITLE@HOST:PORT",
            )

    @property
    def stripping_title(self) -> str:
        """Return the AE title that has marks taken off."""
        return self.strip_title if self.role is Role.BOTH else self.ae_title


_HEAD: Final = """\
# Written by miadmark init, for you to change; then: miadmark config check FILE
# All that can be said stands in deploy/node.toml. Relative paths start at this file's
# folder. A field that is not known is an error.
"""


def written(blueprint: Blueprint, fingerprint: str) -> str:
    """Return the configuration of a node.

    Args:
        blueprint: What it is to be.
        fingerprint: Of the site's keys, which the node is to start with and no others;
            empty if there are none yet.
    """
    parts = [_HEAD, _node(blueprint, fingerprint), _listener(blueprint.door)]
    if blueprint.role.marks and blueprint.research is not None:
        parts += _marking(blueprint, blueprint.research)
    if blueprint.role.strips and blueprint.archive is not None:
        parts += _stripping(blueprint, blueprint.archive)
    parts.append(_WATCHING)
    return "\n".join(parts)


def _node(blueprint: Blueprint, fingerprint: str) -> str:
    named = f"fingerprint = {_text(fingerprint)}\n" if fingerprint else ""
    marking = (
        f"profile = {_text(blueprint.profile)}"
        "           # fast: less time, a weaker mark; strong; logo: a visible one\n"
        if blueprint.role.marks
        else ""
    )
    return f"""\
[node]
ae_title = {_text(blueprint.ae_title)}          # how the node calls itself
# Keys, ledger, grants, queue and spool: back up keys/ and ledger.sqlite, apart.
state = {_text(blueprint.state)}
# Of this site's keys: the node starts with no others. It is another after
# miadmark keys rotate signing.
{named}{marking}"""


def _listener(door: Door) -> str:
    where = f"bind = {_text(door.bind)}\nport = {door.port}\n"
    if door.certificate:
        shown = (
            f"certificate = {_text(door.certificate)}  # read again when it changes\n"
        )
        shown += f"key = {_text(door.key)}\n"
        if door.client_ca:
            return f"""\
[[listener]]
{where}{shown}client_ca = {_text(door.client_ca)}    # callers need a certificate of it
# crl = "revoked.pem"

# Which AE title goes with which certificate; a title without a [[peer]] is refused.
# [[peer]]
# ae_title = "CT1"
# names = ["ct1.hospital.example"]   # DNS names, one of which its certificate has
"""
        return f"""\
[[listener]]
{where}{shown}unknown_peers = "refuse"       # nobody is asked for a certificate

# Who may send: a title without a [[peer]] is refused.
# [[peer]]
# ae_title = "CT1"
# addresses = ["192.0.2.0/24"]
"""
    if door.is_plain:
        return f"""\
# Without TLS: whoever reaches it may send, and what comes can be read on the way.
[[listener]]
{where}plaintext = true
# unknown_peers = "refuse"     # titles without a [[peer]]

# An AE title alone proves nothing; a network is a little more.
# [[peer]]
# ae_title = "CT1"
# addresses = ["192.0.2.0/24"]
"""
    return f"""\
# Without TLS, so for this machine only. Others reach a [[listener]] with a certificate,
# key and client_ca, or one with plaintext = true.
[[listener]]
{where}"""


def _marking(blueprint: Blueprint, research: Side) -> list[str]:
    return [
        f"""\
# Who gets what is marked.
[[destination]]
name = "research"
{_side(research)}# tls_ca = "research-ca.pem"   # what its certificate is signed by
""",
        f"""\
# Every route that matches is taken; what no route matches is refused with 0x0124.
[[route]]
name = "research, marked"
destination = "research"
action = "mark"                # what cannot be marked is held, never sent
not_images = "pass"            # reports, documents, segmentations: or "hold", "drop"
other_pixels = "hold"          # pictures that can carry no mark: or "pass", "drop"
called_ae_titles = [{_text(blueprint.ae_title)}]
# modalities = ["CT", "MR", "CR", "DX"]
""",
    ]


def _stripping(blueprint: Blueprint, archive: Archive) -> list[str]:
    if archive.ca:
        tls = f"tls_ca = {_text(archive.ca)}\n"
        how = "grant add --ae-title TITLE --certificate FILE"
    else:
        tls = '# tls_ca = "archive-ca.pem"    # what its certificate is signed by\n'
        how = "grant add --ae-title TITLE --insecure-address HOST:PORT"
    insecure = (
        "insecure = true                # whoever answers at its address gets originals\n"
        if archive.is_insecure
        else "# insecure = true              # to whoever answers there, without TLS\n"
    )
    return [
        f"""\
# Who gets originals.
[[destination]]
name = "archive"
{_side(archive.side)}{tls}""",
        f"""\
[[route]]
name = "archive, original"
destination = "archive"
action = "strip"               # needs: miadmark {how}
{insecure}called_ae_titles = [{_text(blueprint.stripping_title)}]
""",
        _desk(blueprint.desk),
    ]


def _desk(desk: Desk | None) -> str:
    if desk is None:
        return """\
# The desk of the site that marked, where it does not seal to this one (direct).
# [[desk]]
# address = "https://a.example:11143"
# gateway = "fingerprint of its site file"
# ca = "a-ca.pem"
# certificate = "b.pem"
# key = "b-key.pem"
"""
    lines = [
        f"{name} = {_text(getattr(desk, name))}"
        for name in ("address", "gateway", "ca", "certificate", "key")
    ]
    return "\n".join(("# The desk of the site that marked.", "[[desk]]", *lines, ""))


_WATCHING: Final = """\
# [metrics]                    # Prometheus figures, /health and /ready: counts only
# port = 11180

# [web]                        # the page; first: miadmark web user add NAME --role viewer
# port = 11181
"""


def _side(side: Side) -> str:
    return (
        f"ae_title = {_text(side.ae_title)}\n"
        f"host = {_text(side.host)}\nport = {side.port}\n"
    )


def _text(value: str) -> str:
    """Return a basic string of TOML, which escapes what JSON escapes."""
    return json.dumps(value, ensure_ascii=False)
