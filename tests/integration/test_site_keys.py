"""What an administrator does with keys and grants, as the command line does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import certificate_of, miadmark, opened

OTHER = {"SUDO_USER": "somebody-else"}


@pytest.fixture(scope="module")
def recoverable(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with a recovery key, and two objects that it has marked."""
    work = tmp_path_factory.mktemp("recoverable")
    state = ("--state", work / "s")
    assert miadmark("keys", "init", *state).returncode == 0
    done = miadmark("recovery", "split", "--out", work / "kit", *state)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("ct.dcm", "chest-xray-normal.dcm"):
        (work / "in").mkdir(exist_ok=True)
        shutil.copy(images / name, work / "in" / name)
    done = miadmark(
        *("protect", work / "in", "--out", work / "out", "--profile", "fast", *state)
    )
    assert (done.returncode, done.stderr) == (0, "")
    return work


def shares(work: Path, *numbers: int) -> list[Path]:
    return [work / "kit" / f"share-{number}.txt" for number in numbers]


def assert_restored(folder: Path, images: Path) -> None:
    for name in ("ct.dcm", "chest-xray-normal.dcm"):
        original = opened(images / name).file.dataset
        assert opened(folder / name).file.dataset == original


def test_an_object_and_three_shares_give_the_original_back(
    recoverable: Path, images: Path, tmp_path: Path
) -> None:
    """No state, no ledger, no root: only what the people and the archive have."""
    done = miadmark(
        *("keys", "recover", recoverable / "out", "--out", tmp_path / "back"),
        *("--site", recoverable / "kit" / "site.site"),
        *("--shares", *shares(recoverable, 5, 1, 3)),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_restored(tmp_path / "back", images)


def test_two_shares_give_nothing(recoverable: Path, tmp_path: Path) -> None:
    done = miadmark(
        *("keys", "recover", recoverable / "out", "--out", tmp_path / "back"),
        *("--site", recoverable / "kit" / "site.site"),
        *("--shares", *shares(recoverable, 1, 2)),
    )
    assert done.returncode == 1
    assert "do not join" in done.stderr
    assert not (tmp_path / "back").exists()


def test_a_rehearsal_touches_nothing(recoverable: Path) -> None:
    done = miadmark(
        *("recovery", "rehearse", "--shares", *shares(recoverable, 2, 4, 5)),
        *("--state", recoverable / "s"),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_is_no_second_recovery_key(recoverable: Path, tmp_path: Path) -> None:
    done = miadmark(
        *("recovery", "split", "--out", tmp_path / "kit", "--state", recoverable / "s")
    )
    assert done.returncode == 1
    assert not (tmp_path / "kit").exists()


def test_a_lost_ledger_is_made_again_and_a_shredded_object_stays_lost(
    recoverable: Path, tmp_path: Path
) -> None:
    state = tmp_path / "s"
    shutil.copytree(recoverable / "s", state)
    marked = recoverable / "out"
    shred = ("ledger", "shred", marked / "ct.dcm", "--state", state)
    assert miadmark(*shred).returncode == 0

    def restores(name: str) -> int:
        out = tmp_path / "back"
        done = miadmark("restore", marked / name, "--out", out, "--state", state)
        assert "Traceback" not in done.stderr
        return done.returncode

    assert (restores("ct.dcm"), restores("chest-xray-normal.dcm")) == (1, 0)
    for file in state.glob("ledger.sqlite*"):
        file.unlink()
    assert restores("chest-xray-normal.dcm") == 1
    # Its epoch was destroyed with the other's key: the recovery key has to help.
    rebuild = ("ledger", "rebuild", marked, "--state", state)
    done = miadmark(*rebuild)
    assert (done.returncode, done.stdout) == (1, "1 closed, 1 shredded\n")
    done = miadmark(*rebuild, "--shares", *shares(recoverable, 1, 2, 3))
    assert (done.returncode, done.stdout) == (0, "1 added, 1 shredded\n")
    assert (restores("ct.dcm"), restores("chest-xray-normal.dcm")) == (1, 0)


def test_rotation_leaves_what_is_out_as_it_is(
    recoverable: Path, images: Path, tmp_path: Path
) -> None:
    state = tmp_path / "s"
    shutil.copytree(recoverable / "s", state)
    for what in ("epoch", "identity", "signing", "root"):
        done = miadmark("keys", "rotate", what, "--state", state)
        assert (done.returncode, done.stderr) == (0, ""), what
    assert miadmark("keys", "end-epochs", "--state", state).returncode == 0
    back = ("restore", recoverable / "out", "--out", tmp_path / "back")
    done = miadmark(*back, "--state", state)
    assert (done.returncode, done.stderr) == (0, "")
    assert_restored(tmp_path / "back", images)
    listed = miadmark("keys", "list", "--state", state).stdout
    assert "epoch 1: destroyed" in listed
    assert "root: passphrase, version 2" in listed


def test_a_grant_takes_two_people_and_is_taken_back_by_one(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "s")
    pem = certificate_of(tmp_path, "archive")
    add = ("grant", "add", "--ae-title", "ARCHIVE", "--certificate", pem)
    ask = ("grant", "explain", "--ae-title", "ARCHIVE", "--certificate", pem)
    assert miadmark(*add, *state).returncode == 0
    asked = miadmark(*ask, *state)
    assert (asked.returncode, "waits for approval" in asked.stdout) == (1, True)
    assert miadmark("grant", "approve", 1, *state).returncode == 1
    assert miadmark("grant", "approve", 1, *state, **OTHER).returncode == 0
    assert miadmark(*ask, *state).returncode == 0
    assert "in force" in miadmark("grant", "list", *state).stdout
    assert miadmark("grant", "revoke", 1, *state).returncode == 0
    asked = miadmark(*ask, *state)
    assert (asked.returncode, "was revoked" in asked.stdout) == (1, True)
    assert miadmark("grant", "revoke", 7, *state).returncode == 1
    told = [
        json.loads(line)
        for line in miadmark("audit", "--json", *state).stdout.splitlines()
        if line.startswith("{")
    ]
    did = [entry.get("did") for entry in told if entry["event"] == "grant"]
    assert did == ["proposed", "approved", "revoked"]


def test_a_grant_without_tls_says_what_it_means(tmp_path: Path) -> None:
    state = ("--state", tmp_path)
    add = ("grant", "add", "--ae-title", "OLD", "--insecure-address", "h:1")
    assert "without TLS" in miadmark(*add, *state).stderr
    done = miadmark(*add, "--direct", *state)
    assert (done.returncode, "cannot hold a key" in done.stderr) == (1, True)


def test_the_audit_shows_that_an_entry_was_taken_out(
    recoverable: Path, tmp_path: Path
) -> None:
    state = tmp_path / "s"
    shutil.copytree(recoverable / "s", state)
    assert miadmark("audit", "--state", state).returncode == 0
    file = state / "audit.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[1:]))
    done = miadmark("audit", "--state", state)
    assert done.returncode == 1
    assert "before entry 1" in done.stderr


def test_a_root_of_another_kind_is_chosen_when_keys_are_made(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery staple\n")
    state = ("--state", tmp_path / "s")
    made = miadmark("keys", "init", "--passphrase-file", secret, *state)
    assert (made.returncode, made.stderr) == (0, "")
    assert not (tmp_path / "s" / "keys" / "passphrase").exists()
    secret.write_text("another\n")
    done = miadmark("keys", "list", *state)
    assert done.returncode == 1
    assert "does not open" in done.stderr


def test_a_node_starts_with_the_keys_that_it_was_told_of(tmp_path: Path) -> None:
    state = ("--state", tmp_path / "s")
    miadmark("keys", "init", *state)
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\nport = 0\nstate = "s"\nfingerprint = "{"0" * 32}"\n')
    done = miadmark("serve", "--config", config)
    assert done.returncode == 1
    assert "the configuration wants 0000" in done.stderr
