"""A UID that is remembered is the one that pynetdicom makes, and so is every refusal."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.utils import set_uid

from dicom_node.quick_uids import add_transfer_syntax, uid_of

ORIGINAL = PresentationContext.add_transfer_syntax
EXPLICIT, CT = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2"

names = st.one_of(
    st.sampled_from(
        [EXPLICIT, "1.2.840.10008.1.2", CT, "1.2.3.4", "1.02", "1." + "1" * 63]
    ),
    st.from_regex(r"\A[0-9.]{0,70}[ \0]?\Z"),
    st.text(max_size=5),
)
values = st.one_of(
    names,
    names.map(UID),
    names.map(lambda name: name.encode("utf-8")),
    st.none(),
    st.integers(),
)


def outcome(make: Callable[[], object]) -> tuple[object, object]:
    try:
        made = make()
    except Exception as error:  # noqa: BLE001 whatever it is, it is to be the same
        return type(error), str(error)
    return type(made), made


@given(values, st.tuples(st.booleans(), st.booleans()))
@example(EXPLICIT.encode(), (False, False))
def test_a_uid_is_the_same(value: object, flags: tuple[bool, bool]) -> None:
    wanted = outcome(lambda: set_uid(value, "name", *flags))  # type: ignore[arg-type]
    for _ in range(2):
        assert outcome(lambda: uid_of(value, "name", *flags)) == wanted


@given(st.lists(values, max_size=4))
def test_a_context_gets_the_same_transfer_syntaxes(syntaxes: list[object]) -> None:
    ours, theirs = PresentationContext(), PresentationContext()
    for one in syntaxes:
        wanted = outcome(lambda one=one: ORIGINAL(theirs, one))  # type: ignore[misc]
        assert outcome(lambda one=one: add_transfer_syntax(ours, one)) == wanted  # type: ignore[misc]
    assert ours.transfer_syntax == theirs.transfer_syntax


def test_what_one_context_gets_no_other_has() -> None:
    first, second = PresentationContext(), PresentationContext()
    add_transfer_syntax(first, EXPLICIT)
    add_transfer_syntax(second, CT)  # it is none, and is taken all the same
    add_transfer_syntax(second, EXPLICIT)
    assert (first.transfer_syntax, second.transfer_syntax) == (
        [EXPLICIT],
        build_context(CT, [CT, EXPLICIT]).transfer_syntax,
    )
