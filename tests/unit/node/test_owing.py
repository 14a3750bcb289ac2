"""How urgent an instance is, when its route rests, and how it waits for its study."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.config_file import load
from dicom_node.errors import ConfigError
from dicom_node.instance import Identity
from dicom_node.owing import owed
from dicom_node.queue.order import HeldRoute
from dicom_node.queue.study import Gathering
from dicom_node.resting import resting_routes, why_resting
from dicom_node.route import Facts
from dicom_node.routing import Route

BASE = """
[[destination]]
name = "d"
ae_title = "D"
host = "127.0.0.1"
[[route]]
name = "r"
destination = "d"
action = "pass"
"""
MONDAY_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def route(folder: Path, more: str) -> Route:
    path = folder / "node.toml"
    path.write_text(BASE + more)
    return load(path).routes[0]


def facts(requested: int = 0, **attributes: object) -> Facts:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    identity = Identity(
        sop_class_uid="1",
        sop_instance_uid="1.2",
        study_instance_uid="9",
        modality="CT",
        body_part="",
    )
    return Facts(identity, dataset, "CT1", "GATEWAY", requested)


URGENT = 'priority = 5\nraised_by = 20\npriority_where.StationName = ["ER*"]\n'
TRUSTED = URGENT + "trust_priority = true\n"
PRIORITIES = {
    "ordinary": (URGENT, facts(), 5),
    "of the emergency room": (URGENT, facts(StationName="ER1"), 25),
    "its sender says it is urgent, and is not trusted": (URGENT, facts(1), 5),
    "and is trusted": (TRUSTED, facts(1, StationName="ER1"), 45),
    "low": (TRUSTED, facts(2), -15),
    "medium": (TRUSTED, facts(0), 5),
    "no more than anybody can give": (
        TRUSTED.replace("priority = 5", "priority = 1000"),
        facts(1),
        1000,
    ),
}


@pytest.mark.parametrize(
    ("more", "of", "priority"), PRIORITIES.values(), ids=PRIORITIES.keys()
)
def test_how_urgent_an_instance_is(
    tmp_path: Path, more: str, of: Facts, priority: int
) -> None:
    (to,) = owed([route(tmp_path, more)], of)
    assert to.priority == priority


COUNT = 'study = "count"\nstudy_quiet_s = 60\n'
MINUTE = timedelta(minutes=1)
GATHERINGS = {
    "by default not": ("", facts(), None),
    "quiet": (
        'study = "quiet"\nlate = "quiet"\n',
        facts(NumberOfStudyRelatedInstances=7),
        Gathering(MINUTE, 0, is_late_quiet=True),
    ),
    "as many as it says": (
        COUNT + "study_count = 3\n",
        facts(NumberOfStudyRelatedInstances=7),
        Gathering(MINUTE, 7),
    ),
    "as many as the route says": (
        COUNT + "study_count = 3\n",
        facts(),
        Gathering(MINUTE, 3),
    ),
    "nobody says": (COUNT, facts(), Gathering(MINUTE)),
}


@pytest.mark.parametrize(
    ("more", "of", "gathering"), GATHERINGS.values(), ids=GATHERINGS.keys()
)
def test_how_an_instance_waits_for_its_study(
    tmp_path: Path, more: str, of: Facts, gathering: Gathering | None
) -> None:
    (to,) = owed([route(tmp_path, more)], of)
    assert to.gathering == gathering


def test_what_routes_look_at_is_read_from_what_comes_in(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(BASE + COUNT + URGENT)
    assert load(path).matched_tags >= {0x00201208, 0x00081010}


NIGHTS = 'hours = ["Mon-Fri 18:00-06:00"]\ntimezone = "UTC"\n'


def test_a_route_rests_out_of_hours_or_as_somebody_wants(tmp_path: Path) -> None:
    nights, always = route(tmp_path, NIGHTS), route(tmp_path, "")
    evening = MONDAY_NOON + timedelta(hours=8)
    assert resting_routes([nights], [], MONDAY_NOON) == {"r"}
    assert resting_routes([nights], [], evening) == set()
    assert resting_routes([always], [], MONDAY_NOON) == set()
    held = HeldRoute("r", "Who", "maintenance", MONDAY_NOON)
    assert resting_routes([always], [held], MONDAY_NOON) == {"r"}
    assert resting_routes([route(tmp_path, "hold = true\n")], [], evening) == {"r"}
    (line,) = why_resting([always], [held], MONDAY_NOON)
    assert "held by Who since 2026-01-05T12:00:00+00:00: maintenance" in line
    (line,) = why_resting([nights], [], MONDAY_NOON)
    assert "Mon-Fri 18:00-06:00 (UTC)" in line


WRONG = {
    "hours without a time zone": ('hours = ["Mon"]\n', "timezone"),
    "no hours": ('hours = ["Mond"]\ntimezone = "UTC"\n', "route 'r': hours"),
    "too urgent": ("priority = 5000\n", "priority 5000"),
    "never quiet": ('study = "quiet"\nstudy_quiet_s = 0\n', "study_quiet_s"),
    "no such way": ('study = "sometimes"\n', "study = 'sometimes'"),
    "no such attribute": ('priority_where.Nonsense = ["1"]\n', "Nonsense"),
    "an order that is good for ever": ("[break_glass]\ngood_for_h = 1e9\n", "good_for"),
}


@pytest.mark.parametrize(("more", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_work_is_refused(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        route(tmp_path, more)
