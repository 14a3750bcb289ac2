"""Which root a site has: found again by what its ring says, made when keys are made.

PIN, token and passphrase come from files that the site names, never from the environment
and never from the command line, where others could read them.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dicom_node.durable import write_durably
from dicom_node.errors import KeyFolderError
from dicom_node.keys.passphrase import Cost, PassphraseRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dicom_node.keys.provider import Root

    MakeRoot = Callable[[Path], tuple[Mapping[str, str], Root]]
    """Makes a root for the keys in a folder; returns its settings as well."""

PASSPHRASE_FILE: Final = "passphrase"  # noqa: S105 a name
GENERATED: Final = Cost(memory_kib=8 * 1024, iterations=1, lanes=1)
"""For a passphrase of 256 random bits, which nobody guesses whatever a guess costs."""


def generated_passphrase(folder: Path) -> tuple[Mapping[str, str], Root]:
    """Make a root whose passphrase is drawn, and kept beside the keys.

    That guards a copy of the folder without that one file, and nothing else.
    """
    passphrase = os.urandom(32).hex().encode("ascii")
    write_durably(folder / PASSPHRASE_FILE, passphrase + b"\n")
    root = PassphraseRoot.make(folder, passphrase, GENERATED)
    return {"kind": "passphrase"}, root


def passphrase_in(file: Path) -> MakeRoot:
    """Return what makes a root with the passphrase that ``file`` holds."""

    def make(folder: Path) -> tuple[Mapping[str, str], Root]:
        root = PassphraseRoot.make(folder, secret_in(file), Cost())
        return {"kind": "passphrase", "file": str(file.absolute())}, root

    return make


def pkcs11(module: Path, token: str, label: str, pin_file: Path) -> MakeRoot:
    """Return what makes a root in a PKCS #11 token."""

    def make(_: Path) -> tuple[Mapping[str, str], Root]:
        from dicom_node.keys.pkcs11 import Pkcs11Root

        root = Pkcs11Root.make(
            module=str(module),
            token=token,
            label=label,
            pin=partial(secret_in, pin_file),
        )
        told = {"kind": "pkcs11", "pin_file": str(pin_file.absolute())}
        return told | dict(root.settings()), root

    return make


def transit(settings: Mapping[str, str], token_file: Path) -> MakeRoot:
    """Return what makes a root in a transit service."""

    def make(_: Path) -> tuple[Mapping[str, str], Root]:
        from dicom_node.keys.transit import TransitRoot

        access = partial(_text_in, token_file)
        root = TransitRoot(**settings, access=access, is_new=True)
        told = {"kind": "transit", "token_file": str(token_file.absolute())}
        return told | dict(root.settings()), root

    return make


def open_root(folder: Path, settings: Mapping[str, str]) -> Root:
    """Return the root that a ring in ``folder`` names.

    Raises:
        KeyFolderError: It cannot be found, or does not open with what the site gives.
        KeyServiceError: It cannot be reached for now.
    """
    rest: dict[str, Any] = dict(settings)
    kind = rest.pop("kind", "")
    if kind == "passphrase":
        file = Path(rest.get("file") or folder / PASSPHRASE_FILE)
        return PassphraseRoot.open(folder, partial(secret_in, file))
    if kind == "pkcs11":
        from dicom_node.keys.pkcs11 import Pkcs11Root

        pin_file = Path(rest.pop("pin_file"))
        _require_trustworthy(Path(rest["module"]))
        return Pkcs11Root(**rest, pin=partial(secret_in, pin_file))
    if kind == "transit":
        from dicom_node.keys.transit import TransitRoot

        token_file = Path(rest.pop("token_file"))
        return TransitRoot(**rest, access=partial(_text_in, token_file))
    raise KeyFolderError(f"the root of {folder} is of an unknown kind: {kind!r}")


def _require_trustworthy(module: Path) -> None:
    """Return if a library that is about to be loaded is the system's.

    Where it lies is read from the key folder, before that can be believed: whoever can
    write there must not choose what this process runs.

    Raises:
        KeyFolderError: Somebody other than root could have written it.
    """
    try:
        found = [path.stat() for path in (module.resolve(), module.resolve().parent)]
    except OSError as error:
        raise KeyFolderError(
            f"the token's library {module} cannot be read: {error.strerror}"
        ) from error
    if any(f.st_uid != 0 or f.st_mode & 0o022 for f in found):
        raise KeyFolderError(
            f"the token's library {module} can be written by others than root",
            hint="Install it, and its folder, for root alone to write.",
        )


def secret_in(file: Path) -> bytes:
    """Return the secret that a file holds, without the end of its line.

    Raises:
        KeyFolderError: It cannot be read, or is empty.
    """
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise KeyFolderError(
            f"{file} cannot be read: {error.strerror}",
            hint="It holds what opens this site's keys; the node needs it to start.",
        ) from error
    if not secret:
        raise KeyFolderError(f"{file} is empty")
    return secret


def _text_in(file: Path) -> str:
    return secret_in(file).decode("utf-8")
