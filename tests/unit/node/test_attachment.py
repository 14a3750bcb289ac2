"""A state folder goes with one database, and leaves nothing of its own behind."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dicom_node.attachment import FILE, attach, attached
from dicom_node.backup import back_up, left_out
from dicom_node.config_file import read
from dicom_node.errors import ConfigError, LedgerError
from dicom_node.keys.keyring import Keyring
from dicom_node.keys.sealer import Sealer
from dicom_node.moving import ASIDE, move
from dicom_node.queue.arrival import Arrival, Owed
from dicom_node.queueing import Queueing
from dicom_node.review import warnings_of
from dicom_node.state import State
from dicom_node.usability import doubts_about_database, require_usable
from tests.conftest import NOW, miadmark

SERVER = Queueing(database="postgresql://node@db.example/miadmark")


def config(says: str, folder: Path) -> None:
    read(says.encode(), folder / "node.toml")


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ('database = "postgresql://a:secret@h/d"', "has a password in it"),
        ('database = "postgresql://a@h/d?password=secret"', "has a password in it"),
        ('database = "mysql://a@h/d"', "no address"),
        ('database = "postgresql://a@h"', "no address"),
        ('shared = "x"', "without a database"),
        ('password_file = "x"', "without a database"),
    ],
)
def test_what_cannot_work_is_refused_and_no_password_shown(
    tmp_path: Path, says: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        config(f"[queue]\n{says}\n", tmp_path)
    assert "secret" not in f"{refused.value}{refused.value.hint}"


def test_whoever_goes_to_a_server_in_the_clear_is_warned(tmp_path: Path) -> None:
    def warnings(address: str) -> list[str]:
        says = f'[queue]\ndatabase = "{address}"\n'
        found = warnings_of(read(says.encode(), tmp_path / "node.toml"))
        return [one for one in found if one.startswith("queue")]

    assert warnings("postgresql://a@db.example/d")
    assert warnings("postgresql://a@db.example/d?sslmode=require")
    assert not warnings("postgresql://a@db.example/d?sslmode=verify-full")
    assert not warnings("postgresql://a@127.0.0.1/d")
    assert not warnings("postgresql://a@/d?host=/run/postgresql")


def test_a_folder_remembers_its_database_and_its_name(tmp_path: Path) -> None:
    first = attach(tmp_path, SERVER)
    assert first is not None
    assert attached(tmp_path) == first
    assert "secret" not in (tmp_path / FILE).read_text()
    moved = replace(SERVER, database="postgresql://node@elsewhere/miadmark")
    again = attach(tmp_path, moved)
    assert again is not None
    assert (again.node, again.place) == (first.node, moved)
    with pytest.raises(ConfigError, match="goes with the database at elsewhere"):
        attach(tmp_path, Queueing())
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ConfigError, match="does not say"):
        attached(tmp_path)


def test_what_a_folder_holds_itself_is_not_left_behind(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    with state.ledger() as ledger:
        assert state.attach(SERVER) is not None  # it is empty
        (state.folder / FILE).unlink()
        keyring = state.keys()
        record = Sealer(keyring, ledger.number).seal(b"s", b"", method="t", now=NOW)
        ledger.add(bytes(32), record, NOW)
    with pytest.raises(ConfigError, match=r"ledger\.sqlite holds"):
        state.attach(SERVER)
    (tmp_path / "shared").mkdir()
    (state.folder / "ledger.sqlite").unlink()
    with pytest.raises(ConfigError, match="keys is in the state folder"):
        state.attach(replace(SERVER, shared=tmp_path / "shared"))
    with pytest.raises(ConfigError, match="is no folder"):
        state.attach(replace(SERVER, shared=tmp_path / "not there"))


def test_an_address_is_judged_before_a_node_goes_by_it(
    place: Queueing, tmp_path: Path
) -> None:
    def judge(address: str, more: str = "") -> None:
        says = f'[queue]\ndatabase = "{address}"\n{more}'
        require_usable(read(says.encode(), tmp_path / "node.toml"))

    judge(place.database)
    (doubt, _) = doubts_about_database(place)  # the tests' server is in a hurry
    assert "fsync = off" in doubt
    with pytest.raises(ConfigError, match="does not exist"):
        judge(place.database.replace("@/test", "@/other"))
    with pytest.raises(ConfigError, match="cannot be used"):
        judge("postgresql://node@127.0.0.1:1/d")
    with pytest.raises(ConfigError, match="cannot be read"):
        judge(place.database, 'password_file = "none"\n')
    with pytest.raises(ConfigError, match="is no folder"):
        judge(place.database, 'shared = "none"\n')


@pytest.fixture
def worked(tmp_path: Path) -> State:
    """A state whose node has worked with files of its own."""
    state = State(tmp_path / "state", lambda: NOW)
    keyring = state.keys()
    with state.ledger() as ledger, state.renamings(keyring) as renamings:
        for number in range(3):
            sealer = Sealer(keyring, ledger.number)
            record = sealer.seal(b"%d" % number, b"", method="test", now=NOW)
            ledger.add(bytes([number]) * 32, record, NOW, f"1.{number}")
        renamings.add("1.1", "9.1")
    return state


def test_a_ledger_moves_into_a_database(worked: State, place: Queueing) -> None:
    with worked.ledger() as ledger:
        before = [ledger.find(bytes([number]) * 32) for number in range(3)]
    assert move(worked.folder, place) == 3
    kept = (worked.folder / f"ledger.sqlite{ASIDE}").read_bytes()
    (worked.folder / "ledger.sqlite").write_bytes(kept)
    assert move(worked.folder, place) == 3  # as after a crash in between
    assert worked.attach(place) is not None
    keyring = worked.keys()
    with worked.ledger() as ledger, worked.renamings(keyring) as renamings:
        assert [ledger.find(bytes([n]) * 32) for n in range(3)] == before
        assert ledger.number() == 4
        assert renamings.find("1.1") == "9.1"


def test_it_does_not_move_where_another_has_been(
    worked: State, place: Queueing, tmp_path: Path
) -> None:
    other = State(tmp_path / "other", lambda: NOW)
    assert other.attach(place) is not None
    with other.ledger() as ledger:
        sealer = Sealer(other.keys(), ledger.number)
        record = sealer.seal(b"s", b"", method="test", now=NOW)
        ledger.add(bytes(32), record, NOW)
    with pytest.raises(ConfigError, match="holds 4 rows of record"):
        move(worked.folder, place)
    with other.ledger() as ledger:
        assert ledger.count() == 1
    assert (worked.folder / "ledger.sqlite").exists()


def test_what_is_owed_is_sent_before_a_ledger_moves(
    worked: State, place: Queueing
) -> None:
    with closing(worked.queue()) as queue:
        queue.add(Arrival("1.2", b"d", "a.dcm"), [Owed("r", "to")], NOW)
        with pytest.raises(ConfigError, match="1 jobs are not settled"):
            move(worked.folder, place)
        job = queue.claim(NOW, timedelta(minutes=1))
        assert job is not None
        queue.sent([job], NOW)
    assert move(worked.folder, place) == 3


def test_a_damaged_ledger_does_not_move_in_part(worked: State, place: Queueing) -> None:
    with closing(sqlite3.connect(worked.folder / "ledger.sqlite")) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(
            "UPDATE sqlite_master SET rootpage = 999 WHERE name = 'record'"
        )
        database.commit()
    with pytest.raises(LedgerError, match="cannot be read"):
        move(worked.folder, place)


def test_the_command_moves_and_a_copy_says_what_it_leaves_out(
    worked: State, place: Queueing, tmp_path: Path
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\nstate = "state"\n[queue]\ndatabase = "{place.database}"\n'
    )
    moved = miadmark("state", "move", "--config", path)
    assert moved.returncode == 0, moved.stderr
    assert "3 records" in moved.stdout
    assert worked.attach(place) is not None
    assert back_up(worked.folder, tmp_path / "copy") > 0
    files = json.loads((tmp_path / "copy" / "backup.json").read_text())["files"]
    assert FILE in files
    assert any(name.startswith("keys/") for name in files)
    said = left_out(worked.folder)
    assert "queue, ledger, grants" in said[0]
    assert "spool" in said[1]
    told = miadmark("state", "backup", tmp_path / "again", "--state", worked.folder)
    assert f"not in it: {said[0]}" in told.stdout
    assert Keyring.exists(tmp_path / "copy" / "keys")
