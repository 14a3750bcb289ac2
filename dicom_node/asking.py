"""What a receiver asks a release desk, and what it is answered: JSON both ways.

::

    {"version": 1, "header": Base64, "context": Base64, "ae_title": text,
     "purpose": text, "study_instance_uid": text, "nonce": 32 hexadecimal digits}

    {"version": 1, "sealed": Base64}

The answer holds the object key, sealed with the HPKE of the record's suite to the public
keys in the receiver's grant. Its info is ``label "desk" | binding | nonce``, so that an
answer opens for one record and one request. Who may have one is not known here.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from dicom_node.errors import NodeError
from miadmark_core.sealing.record import MAX_CONTEXT, MAX_HEADER

if TYPE_CHECKING:
    from miadmark_core.sealing.record import Header

PATH: Final = "/v1/release"
MAX_BYTES: Final = 128 * 1024
"""Of a request; a header and a context in Base64 take less."""
NONCE_SIZE: Final = 16

_VERSION: Final = 1
_ALLOWED: Final = {
    "ae_title": re.compile(r"[ -\[\]-~]{1,16}"),  # PS3.5 6.2, VR AE
    "purpose": re.compile(r"[ -~]{1,64}"),
    "study_instance_uid": re.compile(r"[0-9.]{0,64}"),
}


class NoRequestError(NodeError):
    """What came is no JSON, or too much of it."""


class MalformedRequestError(NodeError):
    """What came is JSON, and not a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request for an object key."""

    header: bytes
    """Of the record, as it was sealed."""
    context: bytes
    """Of the object that the receiver has (:func:`dicom_node.binding.context`)."""
    ae_title: str
    """The receiver's own."""
    purpose: str
    study_instance_uid: str
    """Empty where the object names no study."""
    nonce: bytes
    """``NONCE_SIZE`` bytes, drawn for this request."""

    def __post_init__(self) -> None:
        """Refuse what no receiver would ask.

        Raises:
            ValueError: A field is too long, or not of its kind.
        """
        for name, allowed in _ALLOWED.items():
            if not allowed.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is not of its kind")
        if len(self.header) > MAX_HEADER or len(self.context) > MAX_CONTEXT:
            raise ValueError("the header or the context is too long")
        if len(self.nonce) != NONCE_SIZE:
            raise ValueError(f"a nonce of {len(self.nonce)} bytes")

    def to_bytes(self) -> bytes:
        """Return the request; the inverse of :meth:`from_bytes`."""
        values = asdict(self) | {
            "version": _VERSION,
            "header": _base64(self.header),
            "context": _base64(self.context),
            "nonce": self.nonce.hex(),
        }
        return json.dumps(values).encode("ascii")

    @classmethod
    def from_bytes(cls, request: bytes) -> Asked:
        """Return what is asked.

        Raises:
            NoRequestError: It is no JSON, or longer than ``MAX_BYTES``.
            MalformedRequestError: It is JSON, and not a request.
        """
        values = _values(request)
        try:
            texts = _texts(values, set(cls.__dataclass_fields__))
            return cls(
                header=b64decode(texts["header"], validate=True),
                context=b64decode(texts["context"], validate=True),
                ae_title=texts["ae_title"],
                purpose=texts["purpose"],
                study_instance_uid=texts["study_instance_uid"],
                nonce=bytes.fromhex(texts["nonce"]),
            )
        except ValueError as error:
            raise MalformedRequestError(f"no request: {error}") from None


def answer(sealed: bytes) -> bytes:
    """Return the answer that gives a sealed object key; :func:`sealed_in` is inverse."""
    values = {"version": _VERSION, "sealed": _base64(sealed)}
    return json.dumps(values).encode("ascii")


def sealed_in(answered: bytes) -> bytes:
    """Return the sealed object key in an answer.

    Raises:
        ValueError: It is no answer.
    """
    try:
        texts = _texts(_values(answered), {"sealed"})
    except NoRequestError as error:
        raise ValueError(str(error)) from None
    return b64decode(texts["sealed"], validate=True)


def answer_info(header: Header, nonce: bytes) -> bytes:
    """Return what the object key in an answer is bound to."""
    return header.suite.label("desk") + header.binding + nonce


def _values(encoded: bytes) -> Any:
    if len(encoded) > MAX_BYTES:
        raise NoRequestError(f"more than {MAX_BYTES} bytes")
    try:
        return json.loads(encoded)
    except (ValueError, RecursionError):  # a thousand brackets recurse
        raise NoRequestError("no JSON") from None


def _texts(values: Any, names: set[str]) -> dict[str, str]:
    """Return the fields of those names: all of them, texts, and none but the version."""
    if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
        raise ValueError("it is not of version 1")
    if values.keys() != names or not all(isinstance(v, str) for v in values.values()):
        raise ValueError("its fields are not those of version 1")
    return values


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
