"""What was written down is on disk, and shows whether anything was taken out."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dicom_node import latest
from dicom_node.audit import Audit, Event, verify
from dicom_node.audit_files import set_aside
from dicom_node.chain import Head
from dicom_node.errors import AuditError
from tests.conftest import NOW

KEY = b"k" * 32
ENTRIES = 13


def an_audit(path: Path) -> Audit:
    return Audit(path, KEY, lambda: NOW)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    for number in range(ENTRIES):
        an_audit(path).add(Event.RELEASED, study=f"1.2.{number}", grant=number)
    return path


def test_entries_come_back_in_order(written: Path) -> None:
    entries = list(an_audit(written).entries())
    assert [entry["number"] for entry in entries] == list(range(1, ENTRIES + 1))
    assert [entry["grant"] for entry in entries] == list(range(ENTRIES))
    assert an_audit(written).head().number == ENTRIES
    assert written.stat().st_mode & 0o077 == 0


def test_before_the_first_entry_there_is_nothing(tmp_path: Path) -> None:
    assert list(an_audit(tmp_path / "audit.jsonl").entries()) == []


def numbers_back(path: Path) -> list[int]:
    return [entry.head.number for entry in an_audit(path).newest_first()]


def test_entries_come_newest_first_and_each_is_checked(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = list(range(ENTRIES, 0, -1))
    length = written.stat().st_size
    longest = max(map(len, written.read_bytes().splitlines()))
    for block in (*range(longest + 1, longest + 99, 7), length - 1, length, length + 1):
        monkeypatch.setattr(latest, "_BLOCK", block)
        assert numbers_back(written) == wanted, block
    content = written.read_bytes()
    written.write_bytes(content + b'{"number": 14')  # the power went
    assert numbers_back(written) == wanted


@pytest.mark.parametrize("at", range(ENTRIES))
def test_back_from_the_end_what_was_taken_out_is_seen(written: Path, at: int) -> None:
    lines = written.read_bytes().splitlines(keepends=True)
    for changed in (
        [*lines[:at], *lines[at + 1 :]],
        [*lines[:at], lines[at].replace(b"1.2.", b"1.3."), *lines[at + 1 :]],
        [*lines[:at], lines[0], *lines[at:]],
        [*lines[:at], b"x\n", *lines[at:]],
    ):
        written.write_bytes(b"".join(changed))
        if changed == lines[:-1]:  # only a checkpoint shows that
            assert numbers_back(written) == list(range(ENTRIES - 1, 0, -1))
            continue
        with pytest.raises(AuditError):
            numbers_back(written)


def test_back_from_the_end_through_files_that_were_put_aside(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY, lambda: NOW, most_bytes=1500)
    for number in range(20):
        audit.add(Event.RELEASED, grant=number)
    found = [entry.head.number for entry in audit.newest_first()]
    assert found == list(range(20, 0, -1))
    set_aside(audit.path)[0].unlink()
    with pytest.raises(AuditError, match="is gone"):
        list(audit.newest_first())


def test_a_follower_goes_on_after_a_number(written: Path) -> None:
    audit = an_audit(written)
    follower = audit.follower(Head(9, ""))
    assert [entry.head.number for entry in follower.read(99)] == [10, 11, 12, 13]
    follower.close()
    follower = audit.follower(Head(99, ""))
    with pytest.raises(AuditError, match="entry 99"):
        follower.read(1)


def _adds(path: Path, count: int) -> None:
    for _ in range(count):
        an_audit(path).add(Event.GRANT, by="one of two")


def test_two_processes_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_adds, args=(path, 100)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert sum(1 for _ in an_audit(path).entries()) == 200


def test_a_line_that_a_power_cut_has_torn_was_told_to_nobody(written: Path) -> None:
    whole = written.read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for end in range(last, len(whole)):
        written.write_bytes(whole[:end])
        an_audit(written).add(Event.KEYS, did="after the cut")
        entries = list(an_audit(written).entries())
        assert len(entries) == ENTRIES
        assert entries[-1]["did"] == "after the cut"


def _field(name: str, value: object) -> Callable[[bytes], bytes]:
    def change(line: bytes) -> bytes:
        values = json.loads(line)
        values[name] = value
        return json.dumps(values).encode() + b"\n"

    return change


EDITS: list[Callable[[bytes], bytes]] = [
    _field("grant", 99),
    _field("study", "9.9"),
    _field("at", "2030-01-01T00:00:00.000+00:00"),
    _field("event", "keys"),
    _field("number", 3),
    _field("before", "0" * 64),
    _field("hmac", "0" * 64),
    _field("more", "put in"),
    lambda line: line.replace(b": ", b":", 1),
    lambda _: b"{}\n",
    lambda _: b"no JSON\n",
    lambda _: b"\n",
]


def _bad(path: Path) -> int:
    """Return which entry is named as the first that is wrong; 0 if none is."""
    count, told = 0, ""
    try:
        for _ in verify(path, KEY):
            count += 1
    except AuditError as error:
        told = str(error)
    named = f"entry {count + 1} " in told
    return count + 1 if named else 0


def test_the_first_entry_that_is_not_as_it_was_is_named(written: Path) -> None:
    lines = written.read_bytes().splitlines(keepends=True)
    cases: list[tuple[list[bytes], int]] = []
    for place in range(ENTRIES):
        head, rest = lines[:place], lines[place + 1 :]
        edits = {edit(lines[place]) for edit in EDITS} - {lines[place]}
        cases += [([*head, edited, *rest], place + 1) for edited in edits]
        cases += [([*head, lines[place], lines[place], *rest], place + 2)]
        if rest:
            cases += [
                ([*head, *rest], place + 1),
                ([*head, rest[0], lines[place], *rest[1:]], place + 1),
                ([*head, lines[place][:20] + b"\n", *rest], place + 1),
                ([*head, lines[place][:-1], *rest], place + 1),
            ]
    assert len(cases) >= 200
    for content, first in cases:
        written.write_bytes(b"".join(content))
        assert _bad(written) == first


def test_a_fork_is_found_where_it_leaves_the_trunk(
    written: Path, tmp_path: Path
) -> None:
    lines = written.read_bytes().splitlines(keepends=True)
    fork = tmp_path / "fork.jsonl"
    fork.write_bytes(b"".join(lines[:5]))
    an_audit(fork).add(Event.KEYS, did="something else")
    fork.write_bytes(fork.read_bytes() + b"".join(lines[6:]))
    assert _bad(fork) == 7


def test_another_sites_key_proves_nothing(written: Path) -> None:
    with pytest.raises(AuditError, match="entry 1 "):
        next(verify(written, b"x" * 32))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_what_cannot_be_written_down_is_an_error(
    written: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(AuditError, match="No space left"):
        an_audit(written).add(Event.RELEASED)


@pytest.mark.parametrize("every", [1, 2, 7])
def test_who_follows_goes_on_where_a_file_was_put_aside(
    tmp_path: Path, every: int
) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY, lambda: NOW, most_bytes=1500)
    follower, found = audit.follower(), []
    for number in range(42):
        audit.add(Event.READ, what=str(number))
        if number % every == every - 1:
            found += follower.read(100)
    follower.close()
    assert len(set_aside(audit.path)) > 3
    assert [entry.head.number for entry in found] == list(range(1, 43))


def test_who_follows_from_before_the_next_file_has_an_entry(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY, lambda: NOW, most_bytes=1500)
    follower, found = audit.follower(), []
    for number in range(42):
        audit.add(Event.READ, what=str(number))
        audit.head()  # puts a full file aside, and makes an empty one
        found += follower.read(100)
    follower.close()
    assert [entry.head.number for entry in found] == list(range(1, 43))


def test_what_is_put_aside_while_the_next_file_is_opened_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY, lambda: NOW, most_bytes=1500)
    audit.add(Event.READ, what="the first")
    whole, is_done = Path.open, False

    def slow(path: Path, *more: Any, **named: Any) -> Any:
        nonlocal is_done
        if path == audit.path and not is_done:
            is_done = True
            while not set_aside(path):
                audit.add(Event.READ, what="another")
        return whole(path, *more, **named)

    monkeypatch.setattr(Path, "open", slow)
    assert list(audit.entries())
    assert is_done


def test_who_has_seen_half_a_line_sees_what_takes_its_place(written: Path) -> None:
    follower = an_audit(written).follower()
    follower.read(100)
    with written.open("ab") as stream:
        stream.write(b'{"number": 14, "torn')
    assert follower.read(100) == []
    an_audit(written).add(Event.KEYS, did="after the cut")
    assert [one.values["did"] for one in follower.read(100)] == ["after the cut"]
    follower.close()
