"""Prometheus reads what is told, and everything it is told of is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.charter_source import Known
from dicom_node.exposition import Told, exposition
from dicom_node.figures import BOUNDS, Figures, forget_levels, histograms, level
from dicom_node.queue.history import Event, Stand
from dicom_node.queue.job import JobState

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEPLOY = Path(__file__).parents[3] / "deploy"
ODD = 'a "route" \\ of\nmany lines'


def told(tmp_path: Path) -> Told:
    with Figures(tmp_path / "figures.sqlite") as figures:
        for seconds in (0.001, 0.2, 4, 1000):
            figures.took("mark", seconds)
    return Told(
        version="1.2.3",
        now=NOON,
        stands=[
            Stand(ODD, "pacs", JobState.HELD, 3),
            Stand(ODD, "pacs", JobState.UNCOMMITTED, 2),
        ],
        events=[Event("received", "", "", 7), Event("sent marked", ODD, "pacs", 4)],
        oldest={(ODD, "pacs"): NOON - timedelta(seconds=90)},
        unpromised={(ODD, "pacs"): NOON - timedelta(seconds=30)},
        histograms=histograms(tmp_path / "figures.sqlite"),
        pairs=[(ODD, "pacs"), ("other", "research")],
        are_up={"pacs": False, "research": True},
        processes={"worker": True},
        receivers=2,
        receivers_wanted=3,
        associations=5,
        free_bytes=12,
        free_inodes=13,
        wanted_bytes=14,
        charter=Known(6, NOON - timedelta(seconds=70), NOON - timedelta(seconds=20)),
    )


def test_every_figure_has_its_value(tmp_path: Path) -> None:
    text = exposition(told(tmp_path))
    route = r'route="a \"route\" \\ of\nmany lines",destination="pacs"'
    for line in (
        'miadmark_build_info{version="1.2.3"} 1',
        "miadmark_charter_number 6",
        "miadmark_charter_age_seconds 70",
        "miadmark_charter_unreached_seconds 20",
        "miadmark_received_total 7",
        f'miadmark_sent_total{{{route},form="marked"}} 4',
        'miadmark_sent_total{route="other",destination="research",form="marked"} 0',
        f'miadmark_jobs{{{route},state="held"}} 3',
        f'miadmark_jobs{{{route},state="waiting"}} 0',
        f'miadmark_jobs{{{route},state="uncommitted"}} 2',
        f"miadmark_oldest_seconds{{{route}}} 90",
        f"miadmark_uncommitted_seconds{{{route}}} 30",
        'miadmark_mark_seconds_bucket{le="0.005"} 1',
        'miadmark_mark_seconds_bucket{le="0.25"} 2',
        'miadmark_mark_seconds_bucket{le="300"} 3',
        'miadmark_mark_seconds_bucket{le="+Inf"} 4',
        "miadmark_mark_seconds_sum 1004.201000",
        "miadmark_strip_seconds_count 0",
        'miadmark_destination_up{destination="pacs"} 0',
        'miadmark_process_up{process="worker"} 1',
        "miadmark_receivers 2",
        "miadmark_receivers_wanted 3",
        "miadmark_associations 5",
        "miadmark_disk_free_bytes 12",
    ):
        assert line in text.splitlines(), line


def test_figures_of_several_processes_add_up(tmp_path: Path) -> None:
    path = tmp_path / "figures.sqlite"
    for who in ("receiver 0", "receiver 1"):
        with Figures(path) as figures:
            figures.stands("associations", who, 9)
            figures.stands("associations", who, 2)
            figures.took("strip", BOUNDS[0])
    assert level(path, "associations") == 4
    assert histograms(path)["strip"].counts[0] == 2
    forget_levels(path)
    assert level(path, "associations") == 0


def test_what_cannot_be_written_costs_figures_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figures.sqlite"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 20)
    figures = Figures(path)
    figures.took("mark", 1)
    figures.flush()
    assert histograms(path) == {}


@dataclass
class Tool:
    """A command that some machines have."""

    name: str

    def run(self, *arguments: str | Path, given: str = "") -> str:
        done = subprocess.run(
            [self.name, *map(str, arguments)],
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def promtool() -> Tool:
    if shutil.which("promtool") is None:
        pytest.skip("left out: promtool is not installed (apt-get install prometheus)")
    return Tool("promtool")


def test_prometheus_has_nothing_against_it(promtool: Tool, tmp_path: Path) -> None:
    assert promtool.run("check", "metrics", given=exposition(told(tmp_path))) == ""


def test_the_alerts_are_valid_and_do_as_they_say(promtool: Tool) -> None:
    folder = DEPLOY / "prometheus"
    assert "SUCCESS" in promtool.run("check", "rules", folder / "miadmark.rules.yml")
    assert "SUCCESS" in promtool.run("check", "config", folder / "prometheus.yml")
    assert "SUCCESS" in promtool.run(
        "test", "rules", folder / "miadmark.rules.test.yml"
    )


def test_alerts_and_dashboard_ask_for_what_is_told(tmp_path: Path) -> None:
    text = exposition(told(tmp_path))
    known = set(re.findall(r"^(miadmark_\w+)", text, re.MULTILINE))
    rules = (DEPLOY / "prometheus" / "miadmark.rules.yml").read_text("utf-8")
    board = json.loads((DEPLOY / "grafana" / "miadmark.json").read_text("utf-8"))
    asked = re.findall(r"\bmiadmark_\w+", rules)
    for panel in board["panels"]:
        for target in panel["targets"]:
            asked += re.findall(r"\bmiadmark_\w+", target["expr"])
    assert set(asked) - known == set()
    assert len(set(asked)) > 10
