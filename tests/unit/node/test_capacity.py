from __future__ import annotations

import itertools
import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.capacity.constants import Constants, read_constants
from dicom_node.capacity.day import DAY_S, WORKING_DAY, arrivals, peak
from dicom_node.capacity.fleet import (
    STUDIES,
    Demand,
    Fleet,
    associations,
    day,
    days_for,
    limits,
    studies_a_day,
)
from dicom_node.capacity.table import row, table
from dicom_node.capacity.waiting import (
    departures,
    depth,
    erlang_c,
    wait_md1,
    wait_mmc,
)
from dicom_node.cli import main
from dicom_node.errors import ConfigError

README = Path(__file__).parents[3] / "README.md"
CONSTANTS = read_constants(None)

customers = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0.01, 20)), min_size=1, max_size=60
)


@pytest.mark.parametrize(
    ("servers", "load", "waits"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.40918), (5, 0.0, 0.0)],
)
def test_erlang_is_as_in_the_books(servers: int, load: float, waits: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(waits, abs=1e-5)


def test_what_never_gets_through_has_no_wait() -> None:
    with pytest.raises(ValueError, match="never get through"):
        erlang_c(2, 2.0)
    with pytest.raises(ValueError, match="never gets through"):
        wait_md1(2.0, 0.5)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def mean_wait(rate: float, services: list[float], servers: int) -> float:
    chance = seeded(7)
    came = list(itertools.accumulate(chance.expovariate(rate) for _ in services))
    left = departures(came, services, servers)
    waits = (b - a - s for a, b, s in zip(came, left, services, strict=True))
    return sum(waits) / len(services)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (1, 0.7), (4, 3.0)])
def test_followed_one_by_one_they_wait_as_the_formula_says(
    servers: int, load: float
) -> None:
    chance = seeded(11)
    services = [chance.expovariate(1.0) for _ in range(200_000)]
    found = mean_wait(load, services, servers)
    assert found == pytest.approx(wait_mmc(load, 1.0, servers), rel=0.08)


def test_whoever_takes_always_the_same_makes_others_wait_half() -> None:
    found = mean_wait(0.7, [1.0] * 200_000, 1)
    assert found == pytest.approx(wait_md1(0.7, 1.0), rel=0.05)
    assert wait_md1(0.7, 1.0) == pytest.approx(wait_mmc(0.7, 1.0, 1) / 2)


@given(customers, st.integers(1, 5))
def test_nobody_is_lost_overtaken_or_served_twice(
    pairs: list[tuple[float, float]], servers: int
) -> None:
    pairs.sort(key=lambda pair: pair[0])
    came, services = [a for a, _ in pairs], [s for _, s in pairs]
    left = departures(came, services, servers)
    assert len(left) == len(came)
    begun = [b - s for b, s in zip(left, services, strict=True)]
    assert all(b >= a - 1e-9 for a, b in zip(came, begun, strict=True))
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(begun))
    served = depth(sorted(begun), [b - 1e-9 for b in left])
    assert served.most <= servers


@given(customers, st.integers(1, 5))
def test_littles_law_holds(pairs: list[tuple[float, float]], servers: int) -> None:
    """The mean of how many are there is their rate times how long they stay."""
    pairs.sort(key=lambda pair: pair[0])
    came = [a for a, _ in pairs]
    left = departures(came, [s for _, s in pairs], servers)
    span = max(left) - came[0]
    stays = sum(b - a for a, b in zip(came, left, strict=True)) / len(came)
    rate = len(came) / span
    assert depth(came, left).mean == pytest.approx(rate * stays)


@given(st.integers(0, 3000), st.integers(0, 2**32))
def test_a_day_has_its_studies(a_day: int, seed: int) -> None:
    came = arrivals(a_day, WORKING_DAY, seeded(seed))
    assert came == sorted(came)
    assert all(0 <= at < DAY_S for at in came)
    assert abs(len(came) - a_day) <= 7 * math.sqrt(a_day + 1)


def test_most_come_when_most_work() -> None:
    came = arrivals(50_000, WORKING_DAY, seeded(1))
    busiest = WORKING_DAY.index(max(WORKING_DAY))
    share = sum(at // 3600 == busiest for at in came) / len(came)
    assert share == pytest.approx(peak(WORKING_DAY) / 24, rel=0.1)
    assert arrivals(10, [0.0, 1.0], seeded(1))[0] >= DAY_S / 2


@given(st.integers(1, 50), st.integers(1, 64), st.floats(1e6, 1e10))
def test_more_is_never_less(nodes: int, cores: int, link: float) -> None:
    fleet = Fleet(nodes=nodes, cores=cores, link_bytes_per_s=link)
    least = limits(CONSTANTS, fleet)[0].per_s
    for other in (
        replace(fleet, nodes=nodes + 1),
        replace(fleet, cores=cores + 1),
        replace(fleet, link_bytes_per_s=2 * link),
        replace(fleet, profile="fast"),
    ):
        assert limits(CONSTANTS, other)[0].per_s >= least
    assert days_for(CONSTANTS, fleet, least * DAY_S) == pytest.approx(1.0)


def test_whoever_has_cards_marks_on_them() -> None:
    fleet = Fleet(nodes=2, cores=8, gpu_per_s=20.0, link_bytes_per_s=1e10)
    found = {one.what: one.per_s for one in limits(CONSTANTS, fleet)}
    assert found["marking on graphics cards"] == 40.0
    assert "cores, for marking" not in found


def test_a_day_that_asks_little_waits_for_nothing() -> None:
    fleet, demand = Fleet(nodes=1), Demand(instances=10, study_s=60.0)
    quiet = day(CONSTANTS, fleet, demand, 20, seeded(1))
    assert quiet.wait_p95_s < 1.0
    assert quiet.longest < 60
    most = studies_a_day(CONSTANTS, fleet, demand)
    busy = day(CONSTANTS, fleet, demand, most, seeded(1))
    assert busy.longest > 20 * quiet.longest
    assert day(CONSTANTS, fleet, demand, 0, seeded(1)).longest == 0


def test_what_gets_through_in_a_day_is_what_the_day_ends_with() -> None:
    """At most, a day's work ends a day after it began, or not much later."""
    fleet, demand = Fleet(nodes=1, cores=2), Demand(instances=10)
    most = studies_a_day(CONSTANTS, fleet, demand)
    assert day(CONSTANTS, fleet, demand, 0.5 * most, seeded(1)).done_hour < 25
    assert day(CONSTANTS, fleet, demand, 2.0 * most, seeded(1)).done_hour > 40


def test_associations_are_by_littles_law() -> None:
    demand = Demand(instances=1, study_s=60.0, weights=[1.0] * 24)
    assert associations(
        CONSTANTS, demand, Fleet(nodes=2), a_day=2 * DAY_S / 60
    ) == pytest.approx(1.0)


def test_constants_come_back_from_json() -> None:
    assert Constants.of_json(CONSTANTS.as_json()) == CONSTANTS


@pytest.mark.parametrize(
    "change", [{"mark_s": {}}, {"strip_s": 0.0}, {"take_s": "a"}, {"send_s": None}]
)
def test_what_nobody_measured_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Constants.of_json(json.dumps(asdict(CONSTANTS) | change))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '"a"'])
def test_what_holds_no_constants_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="these are no constants"):
        Constants.of_json(text)


def test_a_profile_that_nobody_measured_is_named() -> None:
    with pytest.raises(ConfigError, match="no constant for profile 'logo'"):
        limits(CONSTANTS, Fleet(nodes=1, profile="logo"))


def test_the_table_in_the_readme_is_what_the_model_says() -> None:
    """``miadmark capacity plan`` prints it."""
    rows = [
        row(CONSTANTS, Fleet(nodes=nodes, profile=profile), Demand(), STUDIES)
        for profile in ("fast", "standard")
        for nodes in (1, 10, 100)
    ]
    assert table(rows, STUDIES) in README.read_text("utf-8")
    assert CONSTANTS.machine in README.read_text("utf-8")


def test_a_plan_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["capacity", "plan", "--nodes", "1", "--profile", "strong", "--json"]
    assert main([*command, "--cores", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["breaks_first"] == "cores, for marking"
    assert main([*command[:-1], "--cores", "1"]) == 0
    assert "upper bound" in capsys.readouterr().out
    assert main([*command, "--day", "1", "2"]) == 1
    assert "24" in capsys.readouterr().err
