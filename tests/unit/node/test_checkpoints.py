"""Nobody changes the audit, or cuts its end off, without being found out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from dicom_node.audit import Audit, Event
from dicom_node.audit_files import set_aside
from dicom_node.chain import entries, line_of
from dicom_node.checkpointing import EVERY_ENTRIES, Checkpointing
from dicom_node.checkpoints import Checkpoint, confirmed, kept
from dicom_node.errors import AuditError
from miadmark_core.sealing.signing import Signer
from tests.conftest import NOW

KEY = b"k" * 32
OURS, OTHERS = Signer(bytes(64)), Signer(b"x" * 64)
MOST_BYTES = 3000
"""So that there are several files."""

Lines = list[bytes]


class Site:
    """An audit with checkpoints, in files of a few entries each."""

    def __init__(self, folder: Path, signer: Signer = OURS, key: bytes = KEY) -> None:
        folder.mkdir()
        self.folder, self.elsewhere = folder, folder / "elsewhere"
        self.elsewhere.mkdir()
        self.path, self.key, self.now = folder / "audit.jsonl", key, NOW
        self.audit = Audit(self.path, key, lambda: self.now, most_bytes=MOST_BYTES)
        self.checkpointing = Checkpointing(
            self.audit, lambda: signer, lambda: self.now, self.elsewhere
        )

    def write(self, count: int, every: int = 5) -> None:
        for number in range(count):
            self.audit.add(Event.RELEASED, study=f"1.2.{number}", grant=number)
            self.now += timedelta(seconds=1)
            if number % every == every - 1:
                self.checkpointing.tend(at_once=True)

    def verify(self, *, with_checkpoints: bool = True) -> int:
        """Return how many entries there are."""
        elsewhere = kept(self.elsewhere) if with_checkpoints else []
        found = confirmed(entries(self.path, KEY), [OURS.verifier], elsewhere)
        return sum(1 for _ in found)

    def lines(self) -> Lines:
        files = [*set_aside(self.path), self.path]
        return [line for file in files for line in file.read_bytes().splitlines(True)]

    def put(self, lines: Lines) -> None:
        for file in set_aside(self.path):
            file.unlink()
        self.path.write_bytes(b"".join(lines))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("audits") / "site")
    made.write(30)
    return made


def chained(lines: Sequence[bytes], key: bytes = KEY) -> Lines:
    """Number, chain and authenticate entries anew, as who has the key can."""
    import hashlib

    made: Lines = []
    for line in lines:
        values = json.loads(line)
        values.pop("hmac")
        values["number"] = len(made) + 1
        values["before"] = hashlib.sha256(made[-1]).hexdigest() if made else "0" * 64
        made.append(line_of(values, key))
    return made


def _field(line: bytes, name: str, value: object) -> bytes:
    return json.dumps(json.loads(line) | {name: value}).encode() + b"\n"


def _flipped(line: bytes, place: int) -> bytes:
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


def tampered(lines: Lines, chance: random.Random) -> list[tuple[str, Lines, int]]:
    """Return what somebody without keys can do: how, the lines, the first bad entry."""
    cases: list[tuple[str, Lines, int]] = []
    last = len(lines)
    for place in range(last):
        head, line, rest = lines[:place], lines[place], lines[place + 1 :]
        here = place + 1
        byte = chance.randrange(len(line) - 1)
        cases += [
            (f"bit {byte} of {here}", [*head, _flipped(line, byte), *rest], here),
            (f"edit {here}", [*head, _field(line, "at", "2030"), *rest], here),
            (f"more in {here}", [*head, _field(line, "more", 1), *rest], here),
            (f"twice {here}", [*head, line, line, *rest], here + 1),
            (f"cut after {here}", lines[: place + 1], here + 1),
        ]
        if rest:
            swapped = [*head, rest[0], line, *rest[1:]]
            cases += [
                (f"gap {here}", [*head, *rest], here),
                (f"swap {here}", swapped, here),
            ]
    # The last checkpoint kept elsewhere is about the last entry but one.
    return [case for case in cases if case[1][: last - 1] != lines[: last - 1]]


def rewritten(lines: Lines) -> list[tuple[str, Lines, int]]:
    """Return what somebody with the derivation key, and not the signing key, can do."""
    cases = []
    for place in range(len(lines) - 1):
        head, line, rest = lines[:place], lines[place], lines[place + 1 :]
        if json.loads(line)["event"] == Event.CHECKPOINT:
            continue
        edited = _field(line, "grant", 99)
        cases += [
            (f"rewritten {place + 1}", chained([*head, edited, *rest]), place + 1),
            (f"left out {place + 1}", chained([*head, *rest]), place + 1),
        ]
    return cases


def test_two_hundred_ways_to_tamper_are_each_named(site: Site, tmp_path: Path) -> None:
    lines = site.lines()
    assert len(lines) == 36
    assert len(set_aside(site.path)) > 2
    copy = Site(tmp_path / "copy")
    copy.elsewhere = site.elsewhere
    cases = tampered(lines, random.Random(1))  # noqa: S311 not for secrets
    assert len({how for how, _, _ in cases}) >= 200
    for how, content, first in cases:
        copy.put(content)
        with pytest.raises(AuditError, match=rf"entry {first}\b") as caught:
            copy.verify()
        assert str(caught.value), how


def test_who_has_the_derivation_key_is_found_out_at_the_next_checkpoint(
    site: Site, tmp_path: Path
) -> None:
    lines = site.lines()
    copy = Site(tmp_path / "copy")
    copy.elsewhere = site.elsewhere
    cases = rewritten(lines)
    assert len(cases) > 50
    for how, content, changed in cases:
        copy.put(content)
        # Whether what is kept elsewhere is there or not.
        for with_checkpoints in (True, False):
            with pytest.raises(AuditError, match=r"checkpoint|another") as caught:
                copy.verify(with_checkpoints=with_checkpoints)
            assert caught.value, (how, changed)


def test_a_whole_audit_is_whole_at_every_length(tmp_path: Path) -> None:
    whole = Site(tmp_path / "whole")
    for number in range(1, 60):
        whole.audit.add(Event.GRANT, did="something", grant=number)
        if number % 7 == 0:
            whole.checkpointing.tend(at_once=True)
        if number > 7:
            assert whole.verify() == whole.audit.head().number
    assert len(set_aside(whole.path)) > 3


def test_what_is_written_while_it_is_verified_raises_no_alarm(tmp_path: Path) -> None:
    whole = Site(tmp_path / "whole")
    whole.write(10)
    seen = 0
    for _ in confirmed(
        entries(whole.path, KEY), [OURS.verifier], kept(whole.elsewhere)
    ):
        seen += 1
        if seen < 20:
            whole.write(1)
    assert seen == whole.audit.head().number
    assert set_aside(whole.path)


def _other_signer(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", OTHERS)
    other.write(5)
    for file in other.elsewhere.iterdir():
        (site.elsewhere / file.name).write_bytes(file.read_bytes())


def _other_chain(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    other.audit.add(Event.GRANT, did="elsewhere")
    other.write(5)
    for file in other.elsewhere.iterdir():
        (site.elsewhere / file.name).write_bytes(file.read_bytes())


def _changed(site: Site, _: Path, name: str, value: object) -> None:
    file = min(site.elsewhere.iterdir())
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))


def _fork(site: Site, tmp_path: Path) -> None:
    trunk = site.lines()
    fork = Site(tmp_path / "fork")
    fork.put(trunk[:10])
    fork.audit.add(Event.RELEASED, study="9.9")
    fork.checkpointing.tend(at_once=True)
    site.put(fork.lines())


def _another_sites(site: Site, _: Path) -> None:
    site.put(chained(site.lines(), b"z" * 32))


def _file_gone(site: Site, _: Path, which: int) -> None:
    set_aside(site.path)[which].unlink()


def _files_swapped(site: Site, _: Path) -> None:
    first, second = set_aside(site.path)[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _emptied(site: Site, _: Path) -> None:
    for file in site.elsewhere.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_other_signer, "none of this site's"),
        (_other_chain, "another audit"),
        (partial(_changed, name="number", value=3), "signature does not fit"),
        (partial(_changed, name="digest", value="0" * 64), "signature does not fit"),
        (partial(_changed, name="chain", value="0" * 64), "signature does not fit"),
        (partial(_changed, name="at", value="2030"), "signature does not fit"),
        (partial(_changed, name="signature", value="AAAA"), "signature does not fit"),
        (partial(_changed, name="signature", value="!"), "signature does not fit"),
        (partial(_changed, name="signer", value="00"), "none of this site's"),
        (partial(_changed, name="number", value="3"), "no checkpoint"),
        (_fork, "entry 11 is gone|another|not about"),
        (_another_sites, "entry 1 .*was changed"),
        (partial(_file_gone, which=0), "before entry 1 .*gone|entry 1 .*"),
        (partial(_file_gone, which=1), "gone"),
        (partial(_file_gone, which=-1), "gone"),
        (_files_swapped, "gone"),
        (_emptied, "holds no checkpoint"),
    ],
)
def test_whatever_is_done_to_files_is_found(
    tmp_path: Path, tamper: Callable[[Site, Path], None], said: str
) -> None:
    site = Site(tmp_path / "site")
    site.write(20)
    assert site.verify() == 24
    tamper(site, tmp_path)
    with pytest.raises(AuditError, match=said):
        site.verify()


def test_a_checkpoint_in_the_chain_has_to_be_about_what_stands_before_it(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "site")
    site.write(5)
    ((_, checkpoint),) = kept(site.elsewhere)
    moved = Checkpoint.made(
        checkpoint.chain, replace(checkpoint, number=3).head, checkpoint.at, OURS
    )
    from dicom_node.checkpoints import facts_of

    site.audit.add(Event.CHECKPOINT, **facts_of(moved))
    with pytest.raises(AuditError, match="entry 7 is not about"):
        site.verify()


def test_checkpoints_are_made_when_they_are_due_and_not_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.checkpointing.EVERY_ENTRIES", 10)
    assert EVERY_ENTRIES == 1000
    site = Site(tmp_path / "site")
    assert not site.checkpointing.tend()
    site.audit.add(Event.STARTED)
    assert not site.checkpointing.tend()
    site.now += timedelta(seconds=59)
    assert not site.checkpointing.tend()
    site.now += timedelta(seconds=1)
    assert site.checkpointing.tend()
    site.now += timedelta(hours=1)
    assert not site.checkpointing.tend()
    site.write(9, every=99)
    assert not site.checkpointing.tend()
    site.write(1, every=99)
    assert site.checkpointing.tend()
    assert [c.number for _, c in kept(site.elsewhere)] == [1, 12]


def test_a_folder_that_is_not_there_loses_no_checkpoint(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.elsewhere.rmdir()
    site.audit.add(Event.STARTED)
    with pytest.raises(OSError, match="No such file"):
        site.checkpointing.tend(at_once=True)
    with pytest.raises(OSError, match="No such file"):
        site.checkpointing.tend()
    site.elsewhere.mkdir()
    assert not site.checkpointing.tend()
    assert site.verify() == 2
    assert len(kept(site.elsewhere)) == 1


def test_the_chain_is_signed_while_the_folder_is_away_and_what_it_lacks_follows(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "site")
    site.elsewhere.rmdir()
    for _ in range(3):
        site.audit.add(Event.STARTED)
        with pytest.raises(OSError, match="No such file"):
            site.checkpointing.tend(at_once=True)
    assert site.verify(with_checkpoints=False) == 6

    site.elsewhere.mkdir()
    another = Checkpointing(site.audit, lambda: OURS, lambda: site.now, site.elsewhere)
    another.tend()
    assert [c.number for _, c in kept(site.elsewhere)] == [1, 3, 5]
    another.tend(at_once=True)
    assert site.verify() == 7
    assert len(kept(site.elsewhere)) == 4
