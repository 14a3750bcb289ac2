"""Parts of the page that need no page: waiting, people, settings, plots."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.config_file import load
from dicom_node.decoding import decode_frames
from dicom_node.demo.loopback import await_that
from dicom_node.elements import Limits
from dicom_node.errors import ConfigError, NodeError, UnsupportedPixelDataError
from dicom_node.instance import OpenInstance
from dicom_node.queue.history import slot_of
from dicom_node.usability import require_usable
from dicom_node.watching import Web
from dicom_node.web import shown
from dicom_node.web.attempts import FREE_OF_ADDRESS, FREE_OF_NAME, Attempts, LoginLimits
from dicom_node.web.people import People
from dicom_node.web.plot import plot_of
from dicom_node.web.rights import Role
from dicom_node.web.turns import Turns

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PASSWORD = "four words do well"  # noqa: S105 for tests


def test_waiting_doubles_and_ends() -> None:
    attempts, waits = Attempts(3, timedelta(hours=1)), []
    for _ in range(12):
        waits.append(attempts.wait("vera", NOON).total_seconds())
        attempts.failed("vera", NOON)
    assert waits == [0, 0, 0, 15, 30, 60, 120, 240, 480, 900, 900, 900]
    assert attempts.wait("otto", NOON) == timedelta(0)
    assert attempts.wait("vera", NOON + timedelta(minutes=16)) == timedelta(0)
    attempts.succeeded("vera")
    assert attempts.wait("vera", NOON) == timedelta(0)


def test_failures_are_forgiven_as_time_goes_by() -> None:
    limits, now = LoginLimits(), NOON
    for number in range(3 * FREE_OF_ADDRESS):
        assert not limits.begin(f"name {number}", "192.0.2.1", now)
        now += timedelta(minutes=2)
    for number in range(FREE_OF_ADDRESS):
        assert not limits.begin(f"hasty {number}", "192.0.2.1", now)
    assert limits.begin("otto", "192.0.2.1", now) > timedelta(0)
    assert not limits.begin("otto", "192.0.2.2", now)


def test_attempts_that_are_on_their_way_count() -> None:
    limits = LoginLimits()
    begun = [limits.begin("vera", "192.0.2.1", NOON) for _ in range(50)]
    assert begun.count(timedelta(0)) == FREE_OF_NAME
    limits.succeeded("vera", "192.0.2.1")
    assert not limits.begin("vera", "192.0.2.1", NOON)


def test_who_knows_his_password_leaves_nothing_behind() -> None:
    limits = LoginLimits()
    for number in range(3 * FREE_OF_ADDRESS):
        assert not limits.begin(f"name {number}", "192.0.2.1", NOON)
        limits.succeeded(f"name {number}", "192.0.2.1")


def test_people_are_who_they_say_by_their_password(tmp_path: Path) -> None:
    people = People(tmp_path / "people.json")
    people.put("vera", {Role.VIEWER}, PASSWORD, NOON)
    person = people.proven("vera", PASSWORD)
    assert person is not None
    assert person.roles == {Role.VIEWER}
    for name, password in (("vera", PASSWORD + "x"), ("otto", PASSWORD), ("vera", "")):
        assert people.proven(name, password) is None
    text = (tmp_path / "people.json").read_text("utf-8")
    assert PASSWORD not in text
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in text
    assert (tmp_path / "people.json").stat().st_mode & 0o077 == 0
    people.remove("vera")
    assert people.proven("vera", PASSWORD) is None


def test_people_who_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    names = [f"name{number}" for number in range(12)]

    def put(name: str) -> None:
        People(tmp_path / "people.json").put(name, {Role.VIEWER}, PASSWORD, NOON)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(put, names))
    assert sorted(People(tmp_path / "people.json").all()) == sorted(names)


def test_one_works_and_only_some_wait() -> None:
    turns, began, over = Turns(waiting=1), threading.Event(), threading.Event()

    def work() -> bool:
        with turns.one():
            began.set()
            return over.wait(10)

    with ThreadPoolExecutor(2) as pool:
        working = pool.submit(work)
        assert began.wait(10)
        waiting = pool.submit(work)
        await_that(lambda: not turns._places._value, "a second one")
        with pytest.raises(NodeError, match="too many"), turns.one():
            pass
        over.set()
        assert working.result()
        assert waiting.result()


def test_a_picture_too_large_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, images: Path
) -> None:
    monkeypatch.setattr(shown, "MOST_DECODED", 1000)
    monkeypatch.setattr(shown, "decompressed", None)
    instance = OpenInstance.read(images / "ct.dcm", Limits())
    with pytest.raises(UnsupportedPixelDataError, match="too much"):
        shown.viewed(instance, decode_frames)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("", PASSWORD),
        ("a b", PASSWORD),
        ("<b>", PASSWORD),
        ("vera", "short"),
        ("vera", "x" * 999),
    ],
)
def test_what_is_no_name_or_password_is_refused(
    tmp_path: Path, name: str, password: str
) -> None:
    with pytest.raises(ConfigError):
        People(tmp_path / "people.json").put(name, {Role.VIEWER}, password, NOON)


@pytest.mark.parametrize(
    "said",
    [
        {"bind": "192.0.2.1"},
        {"certificate": Path("x.pem")},
        {"idle_minutes": 0.0},
        {"oidc_issuer": "https://login.example"},
        {"oidc_issuer": "http://login.example", "oidc_client_id": "x"},
        {"address": "http://gateway.example"},
        {"port": 70000},
        {"proxies": ("everywhere",)},
    ],
    ids=str,
)
def test_a_page_that_would_not_be_safe_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Web(**said)  # type: ignore[arg-type]


def test_a_plot_shows_the_numbers() -> None:
    pace = {
        "received": {slot_of(NOON): 6},
        "sent": {slot_of(NOON - timedelta(hours=1)): 3},
    }
    plot = plot_of(pace, NOON, timedelta(hours=2))
    assert plot.most == 6
    assert plot.received.split()[-1] == "720,4"  # the top, at the right
    assert [(h.name, h.received, h.sent) for h in plot.hours] == [
        ("10:00", 0, 0),
        ("11:00", 0, 3),
        ("12:00", 6, 0),
    ]


def test_a_certificate_that_is_not_there_is_told_before_anything_changes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[web]\ncertificate = "a.pem"\nkey = "b.pem"\n', "utf-8")
    with pytest.raises(ConfigError, match=r"web: .*a\.pem cannot be read"):
        require_usable(load(path))
