"""Messages of storage commitment: written and read again, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.commitment import (
    ALL_COMMITTED,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    REASONS,
    SOME_FAILED,
    SYNTAXES,
    Failure,
    Reference,
    Report,
    Request,
    encode,
    reason_in_words,
)
from dicom_node.errors import MalformedObjectError

UIDS = st.from_regex(r"1\.2\.[1-9][0-9]{0,50}", fullmatch=True)
REFERENCES = st.builds(Reference, UIDS, UIDS)
SYNTAX = st.sampled_from(SYNTAXES)


@given(UIDS, st.lists(REFERENCES, min_size=1, max_size=5), SYNTAX)
def test_a_request_is_read_as_it_was_written(
    uid: str, references: list[Reference], syntax: UID
) -> None:
    request = Request(uid, tuple(references))
    assert Request.of(encode(request.to_dataset(), syntax), syntax) == request


@given(
    UIDS,
    st.lists(REFERENCES, max_size=6, unique_by=lambda one: one.sop_instance_uid),
    st.lists(st.sampled_from(sorted(REASONS)), max_size=6),
    SYNTAX,
)
def test_a_report_is_read_as_it_was_written(
    uid: str, references: list[Reference], reasons: list[int], syntax: UID
) -> None:
    failed = tuple(map(Failure, references, reasons))
    report = Report(uid, tuple(references[len(failed) :]), failed)
    assert Report.of(encode(report.to_dataset(), syntax), syntax) == report
    assert report.event_type == (SOME_FAILED if failed else ALL_COMMITTED)


def test_what_is_named_both_ways_has_failed() -> None:
    one = Reference("1.2.3", "1.2.4")
    both = Report("1.2", (one,), (Failure(one, NO_SUCH_INSTANCE),))
    read = Report.of(encode(both.to_dataset(), SYNTAXES[0]), SYNTAXES[0])
    assert read.committed == ()
    assert read.failed == both.failed


def _without(keyword: str) -> bytes:
    said = Request("1.2", (Reference("1.2.3", "1.2.4"),)).to_dataset()
    if keyword in said:
        del said[keyword]
    else:
        del said.ReferencedSOPSequence[0][keyword]
    return encode(said, SYNTAXES[0])


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"\x08\x00", id="cut short"),
        pytest.param(_without("TransactionUID"), id="no transaction"),
        pytest.param(_without("ReferencedSOPSequence"), id="no instances"),
        pytest.param(_without("ReferencedSOPClassUID"), id="no class"),
        pytest.param(_without("ReferencedSOPInstanceUID"), id="no instance"),
    ],
)
def test_what_is_no_request_is_refused(encoded: bytes) -> None:
    with pytest.raises(MalformedObjectError):
        Request.of(encoded, SYNTAXES[0])


def test_a_failure_without_a_reason_has_failed_all_the_same() -> None:
    said = Report("1.2", (), (Failure(Reference("1.2.3", "1.2.4"), 5),)).to_dataset()
    del said.FailedSOPSequence[0].FailureReason
    (failure,) = Report.of(encode(said, SYNTAXES[0]), SYNTAXES[0]).failed
    assert failure.reason == PROCESSING_FAILURE
    assert reason_in_words(failure.reason) == "0x0110 processing failure"
    assert "0x1234" in reason_in_words(0x1234)


def test_no_patient_is_named() -> None:
    said = Request("1.2", (Reference("1.2.3", "1.2.4"),)).to_dataset()
    assert {element.keyword for element in said.iterall()} == {
        "TransactionUID",
        "ReferencedSOPSequence",
        "ReferencedSOPClassUID",
        "ReferencedSOPInstanceUID",
    }
    assert isinstance(said, Dataset)
