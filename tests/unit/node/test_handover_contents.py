"""What goes over from one node to another, told in JSON and read again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.handover_contents import instance_in, words_of
from dicom_node.queue.handing import OpenInstance, OpenJob

NAMES = st.text("abcdef0123456789", min_size=1, max_size=8)
WORDS = st.one_of(st.none(), st.integers(), st.text(max_size=20))


@st.composite
def instances(draw: st.DrawFn) -> OpenInstance:
    """One that is owed, with a file of its own or none any more."""
    own = draw(st.none() | NAMES.map("own-{}".format))
    jobs = draw(
        st.lists(
            st.builds(
                lambda number, filtered, word, promise: OpenJob(
                    number, {"filtered": filtered, "reason": word}, promise
                ),
                st.integers(1),
                st.none() | NAMES.map("made-{}".format),
                WORDS,
                st.none() | st.just({"asks": 1, "study": "1.2"}),
            ),
            max_size=3,
        )
    )
    values: dict[str, Any] = {"file": own, "digest": draw(st.binary(max_size=32))}
    return OpenInstance(
        draw(st.integers(1)), values | {"patient": draw(WORDS)}, (*jobs,)
    )


def files_of(one: OpenInstance) -> list[str]:
    named = [one.values["file"], *(job.values["filtered"] for job in one.jobs)]
    return [name for name in named if name is not None]


@given(instances())
def test_an_instance_is_there_what_it_was_here_but_for_its_files_names(
    one: OpenInstance,
) -> None:
    packed = {name: f"packed {name}" for name in files_of(one)}
    told = json.loads(json.dumps(words_of(one, packed)))
    assert instance_in(told, {there: here for here, there in packed.items()}) == one


@given(instances())
def test_a_file_that_was_not_packed_is_none(one: OpenInstance) -> None:
    told = words_of(one, {})
    assert instance_in(told, {}).values["file"] is None
    assert {job.values["filtered"] for job in instance_in(told, {}).jobs} <= {None}
