"""Who may log in to the page: a file of names, roles and Argon2id hashes.

The names are those that grants know people by: give somebody the name of his account, so
that he is one person whether he uses the page or the command line. An administrator who
can write the file can be anybody; only the audit shows it.

Source:
    RFC 9106, with the second of the settings that OWASP recommends (19 MiB, two passes).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dicom_node.durable import write_durably
from dicom_node.errors import ConfigError
from dicom_node.sealed_file import for_the_owner
from dicom_node.web.rights import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

PEOPLE: Final = "web-people.json"
"""In the state folder: who may log in."""
SHORTEST: Final = 12
"""Characters of a password (NIST SP 800-63B asks for 8 and more)."""
LONGEST: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LENGTH, _PASSES, _KIB, _SALT = 32, 2, 19 * 1024, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One who may log in."""

    name: str
    roles: frozenset[Role]
    hashed: str
    """As PHC strings are written."""
    changed: str
    """When this was written last: who logged in before has to again."""


class People:
    """The file; read anew each time, so that who is taken out is out."""

    def __init__(self, path: Path) -> None:
        """Keep where it is; it need not be there."""
        self._path = path

    def all(self) -> dict[str, Person]:
        """Return everybody, by name.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            listed = json.loads(self._path.read_bytes())["people"]
            people = [_person(**one) for one in listed]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path} cannot be read: nobody can log in",
                hint="Take it from a backup, or delete it: miadmark web user add.",
            ) from error
        return {person.name: person for person in people}

    def put(
        self, name: str, roles: Iterable[Role], password: str, now: datetime
    ) -> Person:
        """Add somebody, or change his password and roles.

        Raises:
            ConfigError: The name or the password is not one.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no name",
                hint="1 to 64 letters, digits and . _ @ -; as the account is called.",
            )
        if not SHORTEST <= len(password) <= LONGEST:
            raise ConfigError(
                f"the password has {len(password)} characters",
                hint=f"{SHORTEST} to {LONGEST}: four words do well.",
            )
        person = Person(
            name=name,
            roles=frozenset(roles),
            hashed=hashed(password),
            changed=now.isoformat(),
        )
        with self._alone():
            self._write({**self.all(), name: person})
        return person

    def remove(self, name: str) -> None:
        """Take somebody out; he is logged out with that.

        Raises:
            ConfigError: He is not there.
        """
        with self._alone():
            people = self.all()
            if people.pop(name, None) is None:
                raise ConfigError(f"there is no {name!r}")
            self._write(people)

    def proven(self, name: str, password: str) -> Person | None:
        """Return whose name and password these are; None if nobody's.

        It takes as long for a name that nobody has.
        """
        person = self.all().get(name)
        try:
            Argon2id.verify_phc_encoded(
                password[:LONGEST].encode("utf-8", "replace"),
                _NOBODY if person is None else person.hashed,
            )
        except (InvalidKey, ValueError):
            return None
        return person

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from changing the file between its being read and written."""
        lock = self._path.with_suffix(".lock")
        with open(lock, "wb", opener=for_the_owner) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _write(self, people: dict[str, Person]) -> None:
        listed = [
            {
                "name": one.name,
                "roles": sorted(one.roles),
                "hashed": one.hashed,
                "changed": one.changed,
            }
            for one in people.values()
        ]
        write_durably(self._path, json.dumps({"people": listed}, indent=1).encode())


def hashed(password: str) -> str:
    """Return what a password can be checked by."""
    return Argon2id(
        salt=os.urandom(_SALT),
        length=_LENGTH,
        iterations=_PASSES,
        lanes=1,
        memory_cost=_KIB,
    ).derive_phc_encoded(password.encode("utf-8", "replace"))


_NOBODY: Final = hashed(os.urandom(16).hex())


def _person(name: str, roles: list[str], hashed: str, changed: str, **_: Any) -> Person:
    return Person(
        name=name, roles=frozenset(map(Role, roles)), hashed=hashed, changed=changed
    )
