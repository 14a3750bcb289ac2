"""What can go wrong with an image, a key or a record, cut by what the reader can do.

::

    MiadMarkError                 about this image, this key or this data
      UnsupportedImageError       cannot carry a removable mark
      MarkingError                no acceptable mark was found within the budget
      RemovalError
        WrongKeyError             the removal key belongs to another image
        AlteredImageError         the marked pixels changed on the way
      SealError
        UnknownFormatError        written by a later version: upgrade
        DamagedSealError          not what was sealed, or no longer
        UntrustedSignerError      sealed by a gateway that this site does not trust
        NoStanzaError             sealed, but not to this identity
      WeightsError                a surrogate's weights are missing or not what they were
      DataSetError                a folder of labelled images cannot be used
"""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """Which check of a sealed record said no, in the order in which they are made.

    For audits and tests. Whoever asks from outside never learns more than "no" of those
    that use a secret, :attr:`STANZA` and later.
    """

    FORM = "form"
    """Sizes, fields and their order."""
    SUITE = "suite"
    """Version and suite: known here, and not below the floor."""
    SIGNER = "signer"
    """The gateway is trusted for this record."""
    SIGNATURE = "signature"
    PAYLOAD_DIGEST = "payload digest"
    LEDGER = "ledger"
    """The gateway's own copy is the same."""
    CONTEXT = "context"
    """The record belongs to this object."""
    STANZA = "stanza"
    """One of them is for us, and opens."""
    COMMITMENT = "commitment"
    AUTHENTICATION = "authentication"
    PAYLOAD = "payload"


class MiadMarkError(Exception):
    """A sentence for whoever reads it, and what to try next.

    The message says what was wrong, in lower case, without a full stop. Neither it nor
    the hint ever holds a patient's name, a key or a pixel.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep ``message`` for ``str()`` and ``hint`` beside it."""
        super().__init__(message)
        self.hint = hint


class UnsupportedImageError(MiadMarkError):
    """The image cannot carry a mark that could be removed again."""


class MarkingError(MiadMarkError):
    """No acceptable mark was found within the budget."""


class RemovalError(MiadMarkError):
    """The mark cannot be removed exactly, so it is not removed at all."""


class WrongKeyError(RemovalError):
    """The removal key belongs to another image."""


class AlteredImageError(RemovalError):
    """The marked pixels are not the ones that were marked."""


class SealError(MiadMarkError):
    """A sealed record cannot be opened."""

    def __init__(
        self, message: str, *, hint: str = "", layer: Layer = Layer.FORM
    ) -> None:
        """Keep which check said no, beside the rest."""
        super().__init__(message, hint=hint)
        self.layer = layer


class UnknownFormatError(SealError):
    """The record was written in a format that this version does not know."""


class DamagedSealError(SealError):
    """The record does not authenticate: changed, cut, or moved from elsewhere."""


class UntrustedSignerError(SealError):
    """The record was signed by a gateway that is not on the list of trusted ones."""


class NoStanzaError(SealError):
    """The record is not sealed to the identity at hand."""


class WeightsError(MiadMarkError):
    """Weights are missing, or their digest is not the one in the manifest."""


class DataSetError(MiadMarkError):
    """A folder of labelled images cannot be used."""
