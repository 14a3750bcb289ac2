"""Engines by name: a profile, a profile with a change, or a published attack."""

import pytest

from dicom_node.demo.engines import ENGINES, profile_of
from dicom_node.errors import NodeError
from miadmark_core.mode import Mode
from miadmark_core.search.effort import Effort
from miadmark_core.search.logo import LogoEffort


def test_engines_lead_to_error_but_the_one_that_informs() -> None:
    for name in ENGINES:
        effort = profile_of(name)
        if isinstance(effort, Effort):
            is_lot = name == "information"
            assert effort.mode is (Mode.INFORMATION if is_lot else Mode.ERROR)
    assert isinstance(profile_of("logo"), LogoEffort)
    assert profile_of("bsr") is None


def test_a_profile_is_changed_by_name() -> None:
    effort = profile_of("fast:settling=0,slope=1.5,only=efficientnet-lite0")
    assert isinstance(effort, Effort)
    assert (effort.settling, effort.slope) == (0, 1.5)
    assert effort.only == "efficientnet-lite0"
    drawn = profile_of("standard:drawn_steps=0")
    assert isinstance(drawn, Effort)
    assert drawn.drawn_steps == 0
    changed = profile_of("standard:is_changed=false")
    assert isinstance(changed, Effort)
    assert changed.is_changed is False


@pytest.mark.parametrize(
    "name",
    [
        "slow",
        "standard:volume=3",
        "standard:steps=many",
        "standard:steps",
        "standard:mode=information",
        "standard:cells=50",
        "standard:is_changed=1",
        "logo:steps=9",
        "bsr:steps=9",
    ],
)
def test_what_cannot_be_understood_is_refused(name: str) -> None:
    with pytest.raises(NodeError):
        profile_of(name)
