"""Questions on a terminal, asked until the answer can be used: what ``init`` wants."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dicom_node.errors import NodeError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

T = TypeVar("T")


def can_ask() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def asked(question: str, default: str, read: Callable[[str], T]) -> T:
    """Return the answer to a question, asked again as long as it cannot be used.

    Questions go to standard error, so that standard output has nothing but what was done.

    Args:
        question: Without a question mark.
        default: Taken for an empty answer.
        read: Returns what an answer means, and raises NodeError if it means nothing.

    Raises:
        NodeError: Nobody answers any more.
    """
    shown = f" [{default}]" if default else ""
    while True:
        print(f"{question}{shown}: ", end="", file=sys.stderr, flush=True)
        try:
            answer = input().strip() or default
        except EOFError:
            raise NodeError(
                "nobody answers", hint="Say it by options instead: --help has them."
            ) from None
        try:
            return read(answer)
        except NodeError as error:
            print(f"{error}. {error.hint}".strip(), file=sys.stderr)


def yes_or_no(text: str) -> bool:
    """Return what an answer means.

    Raises:
        NodeError: Neither yes nor no.
    """
    if text.lower() in {"y", "yes"}:
        return True
    if text.lower() in {"n", "no", ""}:
        return False
    raise NodeError(f"{text!r} is neither yes nor no")


def interview(options: argparse.Namespace) -> None:
    """Have somebody say what options of ``init`` have not.

    Args:
        options: Those that are None, or empty, are filled.

    Raises:
        NodeError: Nobody answers any more.
    """
    from dicom_node.blueprint import Role

    _fill(
        *(options, "role", "What for: egress marks, receiving takes marks off, both"),
        *("egress", _role),
    )
    _fill(options, "ae_title", "AE title of the node", "MIADMARK", _title)
    _fill(options, "port", "Port that it listens on", "11112", _port)
    role = Role(options.role)
    if role.marks:
        _fill(options, "marked_to", "Who gets what is marked, AE@HOST:PORT", "", _side)
    if role.strips:
        _fill(options, "originals_to", "Who gets originals, AE@HOST:PORT", "", _side)
    if role.strips and not options.insecure:
        question = "File of what that one's certificate is signed by; none: no TLS"
        _fill(options, "originals_ca", question, "", _file)
        if not options.originals_ca:
            options.insecure = asked(
                f"May whoever answers at {options.originals_to} have originals",
                "no",
                yes_or_no,
            )


def _fill(
    options: argparse.Namespace,
    name: str,
    question: str,
    default: str,
    read: Callable[[str], object],
) -> None:
    if getattr(options, name) is None:
        setattr(options, name, asked(question, default, read))


def _role(text: str) -> str:
    from dicom_node.blueprint import Role

    if text not in set(Role):
        raise NodeError(f"{text!r} is none of {', '.join(Role)}")
    return text


def _title(text: str) -> str:
    from dicom_node.addressing import check_ae_title

    check_ae_title("the node", text)
    return text


def _side(text: str) -> str:
    from dicom_node.blueprint import Side

    Side.of(text)
    return text


def _file(text: str) -> str:
    if text and not Path(text).is_file():
        raise NodeError(f"{text} is no file")
    return text


def _port(text: str) -> int:
    from dicom_node.addressing import check_port

    if not text.isdecimal():
        raise NodeError(f"{text!r} is no number")
    check_port("the node", int(text))
    return int(text)
