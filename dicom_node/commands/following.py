"""What to type after ``init``, word for word."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_node.blueprint import Archive, Blueprint


def following(blueprint: Blueprint, path: Path, folder: Path) -> list[tuple[str, str]]:
    """Return commands as they are to be typed, each with what it is for.

    Args:
        blueprint: What the node is to be.
        path: Of its configuration.
        folder: Of its state.
    """
    state = ("--state", str(folder))
    serve = (
        _typed("serve", "--config", str(path)),
        "the node; it stops with Ctrl-C",
    )
    check = (_typed("doctor", "--config", str(path)), "is everything well?")
    steps = []
    if blueprint.role.strips and blueprint.archive is not None:
        archive = blueprint.archive
        steps = [
            (
                _typed("keys", "export-recipient", "--out", "this.site", *state),
                "public keys, for the site that marks",
            ),
            (
                _typed("keys", "trust", "that.site", *state),
                "what it sends back; compare the fingerprints by telephone",
            ),
            (
                _typed("grant", "add", *_terms(archive), *state),
                f"{archive.side.ae_title} may have originals; somebody else then says:",
            ),
            (_typed("grant", "approve", "1", *state), "from another account"),
        ]
    steps.append(serve)
    if blueprint.role.marks:
        door = blueprint.door
        host = "127.0.0.1" if door.bind in {"0.0.0.0", "::"} else door.bind  # noqa: S104
        if not door.certificate:
            send = (
                f"storescu --call {shlex.quote(blueprint.ae_title)} {host} {door.port}"
            )
            steps.append((f"{send} FILE", "a first object, by DCMTK"))
        steps.append(
            (
                _typed("recovery", "split", "--out", "kit", *state),
                "so that people can give originals back when all else is gone",
            )
        )
    return [*steps, check]


def _terms(archive: Archive) -> list[str]:
    terms = ["--ae-title", archive.side.ae_title]
    if archive.is_insecure:
        address = f"{archive.side.host}:{archive.side.port}"
        return [*terms, "--insecure-address", address]
    return [*terms, "--certificate", "its-certificate.pem"]


def _typed(*words: str) -> str:
    """Return how this program is called here, with these words."""
    script = Path(sys.executable).with_name("miadmark")
    found = shutil.which("miadmark")
    if found and Path(found).resolve() == script.resolve():
        program = ["miadmark"]
    elif script.exists():
        program = [str(script)]
    else:
        program = [sys.executable, "-m", "dicom_node"]
    return shlex.join([*program, *words])
