"""A PostgreSQL server (Debian's postgresql) of its own: a cluster in a folder in /tmp.

It does not run as root, so there it runs as Debian's ``postgres``. Nothing is written to
the disk before it answers (``fsync=off``): it is what it keeps that is tested.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

from dicom_node.demo.loopback import LOOPBACK, await_that, free_ports, make_certificate
from dicom_node.queueing import Queueing

USER = "node"
_TEMPLATE = "made"
_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
}


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("left out: no PostgreSQL server (apt-get install postgresql)")
    return found[-1].parent


@dataclass
class PostgresServer:
    """One that runs."""

    folder: Path
    port: int
    binaries: Path
    password: str
    process: subprocess.Popen[bytes] | None = None
    _numbers: count[int] = field(default_factory=lambda: count(1))

    @property
    def ca(self) -> Path:
        return self.folder / "server-cert.pem"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def command(self, name: str, *arguments: object) -> list[str]:
        """Return how one of the server's programs is run, as whoever the server is.

        It ends with whoever runs it.
        """
        as_whom = ["setpriv", "--pdeathsig", "QUIT"]
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            as_whom += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"]
            as_whom += ["--clear-groups"]
        return [*as_whom, "--", str(self.binaries / name), *map(str, arguments)]

    def start(self) -> None:
        settings = {
            **_FAST,
            "port": str(self.port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": str(self.folder),
            "ssl": "on",
            "ssl_cert_file": str(self.folder / "server-cert.pem"),
            "ssl_key_file": str(self.folder / "server-key.pem"),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command("postgres", "-D", self.folder / "data", *options),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        await_that(answers, f"the server; see {self.folder / 'log'}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: by SIGINT it ends sessions, by SIGQUIT it dies as by a power cut."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=120)
            self.process = None

    def restart(self) -> None:
        self.stop(signal.SIGQUIT)
        self.start()

    def address(self, name: str) -> str:
        """Return the address of a database, by the server's socket."""
        return f"postgresql://{USER}@/{name}?host={self.folder}&port={self.port}"

    def tls_address(self, name: str) -> str:
        """Return its address by TCP, where a password is asked for."""
        where = f"postgresql://{USER}@{LOOPBACK}:{self.port}/{name}"
        return f"{where}?sslmode=verify-full&sslrootcert={self.ca}"

    def database(self) -> Queueing:
        """Return a new database, with the tables in it."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return Queueing(database=self.address(name))

    def drop(self, place: Queueing) -> None:
        name = place.database.split("@/")[1].split("?", maxsplit=1)[0]
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, name: str = "postgres") -> None:
        with psycopg.connect(self.address(name), autocommit=True) as connection:
            connection.execute(statement)

    def make(self) -> None:
        """Make a cluster, in which somebody by the network has to know the password."""
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        make_certificate(self.folder, "server")
        self.password_file.write_text(f"{self.password}\n")
        self.password_file.chmod(0o600)
        if account is not None:
            for each in (self.folder, *self.folder.iterdir()):
                os.chown(each, account.pw_uid, account.pw_gid)
        made = self.command(
            *("initdb", "--no-sync", "-D", self.folder / "data", "-U", USER),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--pwfile", self.password_file, "--encoding=UTF8", "--locale=C.UTF-8"),
        )
        subprocess.run(made, check=True, cwd=self.folder, capture_output=True)


@contextmanager
def a_postgres() -> Iterator[PostgresServer]:
    """Run a server until the end of the block."""
    from dicom_node.queue.postgres import PostgresQueue

    binaries = _binaries()
    # Not below pytest's folder: the name of a socket is short, and its folder open.
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    (port,) = free_ports(1)
    server = PostgresServer(folder, port, binaries, secrets.token_hex(8))
    try:
        server.make()
        try:
            server.start()
            server.execute(f"CREATE DATABASE {_TEMPLATE}")
            PostgresQueue(Queueing(database=server.address(_TEMPLATE))).close()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
