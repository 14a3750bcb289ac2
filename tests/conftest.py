"""What tests share: real objects, small and fast; fakes come from the packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings
from pynetdicom import _config, dimse_messages

from dicom_node import closed_sockets
from dicom_node.demo.loopback import make_certificate, path_without_scripts
from dicom_node.elements import Limits
from dicom_node.filters.mark import MarkedInstance, mark
from dicom_node.finders import SHIPPED_WEIGHTS
from dicom_node.instance import OpenInstance
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import Sealer
from dicom_node.queue.postgres import PostgresQueue
from dicom_node.queue.sqlite import SqliteQueue
from dicom_node.queueing import Queueing
from miadmark_core.search.effort import Effort
from miadmark_core.search.finder import Finder
from tests.postgres_server import PostgresServer, a_postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_node.queue.sql_queue import SqlQueue

    Opens = Callable[..., SqlQueue]
    MarkOne = Callable[[OpenInstance], MarkedInstance]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

# How long an example takes says how busy the machine is.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

# Always as many: what a search of a few steps finds depends on how sums are split.
torch.set_num_threads(2)

# Or what one test leaves to Python is a warning in another.
closed_sockets.install()

# The peers are DCMTK's, whatever an activated environment would find first.
os.environ["PATH"] = path_without_scripts()


def opened(path: Path) -> OpenInstance:
    return OpenInstance.of(path.read_bytes(), Limits())


def miadmark(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with more in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "dicom_node", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | more,
    )


def certificate_of(folder: Path, name: str) -> Path:
    """Make a certificate, and return where it lies, PEM."""
    make_certificate(folder, name)
    return folder / f"{name}-cert.pem"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session."""
    with a_postgres() as server:
        yield server


@pytest.fixture
def place(postgres: PostgresServer) -> Iterator[Queueing]:
    """A database of it for one test."""
    place = postgres.database()
    yield place
    postgres.drop(place)


@pytest.fixture(params=["sqlite", "postgres"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    """Opens one and the same queue, which is in a file or on a server."""
    if request.param == "sqlite":
        return partial(SqliteQueue, tmp_path / "queue.sqlite")
    return partial(PostgresQueue, request.getfixturevalue("place"))


@pytest.fixture(scope="session")
def images() -> Iterator[Path]:
    """The openly licensed objects of the demonstration."""
    with resources.as_file(
        resources.files("dicom_node.demo").joinpath("images")
    ) as folder:
        yield folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """Labelled images and DICOM files beside the repository."""
    folder = Path(os.environ.get("MIADMARK_DATA", "../shared"))
    if not (folder / "dicom" / "index.csv").exists():
        pytest.skip(f"left out: {folder} holds no data; set MIADMARK_DATA")
    return folder


HURRIED = Effort(steps=2, settling=0)


@pytest.fixture(scope="session")
def finder() -> Finder:
    """The shipped surrogates, hurried: two steps find a mark, if not a good one."""
    return Finder(SHIPPED_WEIGHTS, device=torch.device("cpu"), effort=HURRIED)


def a_site(folder: Path) -> Sealer:
    """Fresh keys of a site, and what seals with them."""
    return Sealer(Keyring.make(folder / "keys", NOW), count(1).__next__)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    return a_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def mark_one(finder: Finder, keys: Sealer) -> MarkOne:
    def marked(instance: OpenInstance) -> MarkedInstance:
        (outcome,) = mark(
            [instance], find=finder.find, keys=keys, now=NOW, holds_weak=False
        )
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return marked


@pytest.fixture(scope="session")
def peers() -> None:
    """DCMTK: without it the tests that need it are left out, and named."""
    if shutil.which("storescp") is None:
        pytest.skip("left out: DCMTK is not installed (apt-get install dcmtk)")


@pytest.fixture(scope="module", autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Put back what a listener sets for its whole process, module by module."""
    modules = (_config, dimse_messages)
    before, folder = [dict(vars(m)) for m in modules], tempfile.tempdir
    yield
    for module, names in zip(modules, before, strict=True):
        vars(module).update(names)
    tempfile.tempdir = folder
