"""What can go wrong around an image, cut by what the reader can do.

::

    NodeError                     about the world around the image
      ConfigError                 says file, field, value and what would be accepted
      SpoolError                  disk full or not writable: refuse new instances
        ServerError               passing: the database server cannot be used
          UnsureError             it went away: what it was told is done, or is not
      ClashError                  other bytes under a known UID: kept, not acknowledged
      KeyFolderError              keys are missing, unreadable or already there
      KeyServiceError             passing: whatever keeps the root key does not answer
      AuditError                  passing: what happens cannot be written down
      LedgerError                 the second copy of the records cannot be used
      ChangingError               passing: by which rules to go on is not settled yet
        AnotherSearchError        marks of this node would be others than its site's
      CodecProcessError           passing: nothing compressed can be decoded just now
      BackfillError               an archive cannot be back-filled as was asked for
        SourceError               passing: where objects come from, or go, does not answer
      FilterError                 this object cannot be marked, or not be restored
        MalformedObjectError      not DICOM, cut short, or over the limits
          CodecCrashError         decoding it crashed, hung or wanted too much memory
        UnsupportedPixelDataError pixels that cannot be read here
          UnmarkablePixelsError   pixels in a form that can carry no mark
        NotAnImageError           an object without a picture to protect
          QuantityError           its pixels are labels or quantities
        AlreadyMarkedError        it carries a mark of ours
        AnotherMarkError          its original went out with another mark
        NotMarkedError            it carries none, and the ledger knows of none
        LostRecordError           it says it was marked, and its record is gone
        RenamedError              it was marked under another SOP Instance UID
        ShreddedError             its key was destroyed on purpose
        NotGrantedError           the receiver may not have the original
        SpoiledFileError          its file in the spool is not as it was written
        UnforeseenError           something else went wrong: a few tries, and no more
      SendError
        SendRefusedError          permanent: the receiver said no, and its status
          UnaskedError            there was nothing that it could be asked to take
        SendInterruptedError      passing: try again
          UnreachableError        the destination's trouble, not the object's
          BrokenOffError          the association broke: the trouble of either
          UnsaidError             the destination did not say whether it has it
          OutOfResourcesError     the destination has no room for it now
"""

from __future__ import annotations


class NodeError(Exception):
    """A sentence for whoever reads it, and what to try next.

    The message says what was wrong, with the value, in lower case, without a full stop.
    Neither it nor the hint ever holds a patient's name, a key or a pixel.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep ``message`` for ``str()`` and ``hint`` beside it."""
        super().__init__(message)
        self.hint = hint


class ConfigError(NodeError):
    """The configuration says something that cannot be done."""


class SpoolError(NodeError):
    """An instance cannot be made durable."""


class ServerError(SpoolError):
    """The database server cannot be reached, or has refused; nothing is changed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep what the server said."""
        super().__init__(
            f"the database server cannot be used: {message}",
            hint=hint
            or "Is it there, and does it let this node in? miadmark config check says.",
        )


class UnsureError(ServerError):
    """The database server went away while it was told: it is done, or it is not."""


class ClashError(NodeError):
    """Other bytes came in under the UID of an instance that is known."""


class KeyFolderError(NodeError):
    """The keys of this site cannot be read or written."""


class KeyServiceError(NodeError):
    """The place that keeps the root key cannot be reached, or refuses for now."""


class AuditError(NodeError):
    """An entry of the audit cannot be made durable, or the audit is not whole."""


class LedgerError(NodeError):
    """The ledger cannot be read or written."""


class ChangingError(NodeError):
    """The node goes over to another configuration, and this may be right by either."""


class AnotherSearchError(ChangingError):
    """This node would find other marks than the other nodes of its site."""


class ClusterError(NodeError):
    """The machines that search for marks cannot, for now: no object's fault."""


class CodecProcessError(NodeError):
    """The process that decodes compressed pixels cannot be started."""


class BackfillError(NodeError):
    """An archive, or an object of it, cannot be back-filled as was asked for."""


class SourceError(BackfillError):
    """Where objects come from, or where they go, cannot be used just now."""


class FilterError(NodeError):
    """An object cannot be marked, or cannot be restored."""


class MalformedObjectError(FilterError):
    """It is no DICOM object, is cut short, or is over the limits."""


class NotAsAnnouncedError(FilterError):
    """The command says that another object follows than does (PS3.4 B.2.3)."""


class CodecCrashError(MalformedObjectError):
    """Its pixels made a codec crash, hang or ask for too much memory."""


class UnsupportedPixelDataError(FilterError):
    """Its pixels are kept in a way that this version does not read or mark."""


class UnmarkablePixelsError(UnsupportedPixelDataError):
    """Its pixels can carry no mark: a route may pass it as it is, or drop it."""


class NotAnImageError(FilterError):
    """It holds no picture that a classifier could diagnose."""


class QuantityError(NotAnImageError):
    """Its pixels are labels or quantities, and a mark would change what they say."""


class WeakMarkError(FilterError):
    """The mark that was found does not mislead whom it was tried on."""


class AlreadyMarkedError(FilterError):
    """It carries a mark already."""


class AnotherMarkError(FilterError):
    """Its original went out with another mark before."""


class NotMarkedError(FilterError):
    """It carries no mark, and the ledger knows of none."""


class LostRecordError(FilterError):
    """It says that it was marked, and its record is gone."""


class RenamedError(FilterError):
    """Its record names another SOP Instance UID, and all else is as it was marked."""


class ShreddedError(FilterError):
    """Its key was destroyed on purpose, so the original cannot come back."""


class NotGrantedError(FilterError):
    """The receiver may not have the original."""


class SpoiledFileError(FilterError):
    """Its file in the spool was changed, cut short or swapped, or the disk is failing."""


class UnforeseenError(FilterError):
    """Something went wrong in a way that nobody foresaw; its cause says what."""


class SendError(NodeError):
    """An instance did not reach its destination, as far as is known."""

    may_have_it: bool = False
    """Whether the destination may have it all the same."""


class SendRefusedError(SendError):
    """The receiver said no, and would say so again."""


class UnaskedError(SendRefusedError):
    """There is nothing that the receiver could take: it was not asked."""


class SendInterruptedError(SendError):
    """Something came between; the same may work later."""


class UnreachableError(SendInterruptedError):
    """The destination is not there, wants nobody, or has no turn for us now."""


class BrokenOffError(SendInterruptedError):
    """The association broke while an instance was sent: it may have it, or not."""

    may_have_it = True


class UnsaidError(SendInterruptedError):
    """The destination answered, and not whether it has the instance: it may."""

    may_have_it = True


class OutOfResourcesError(SendInterruptedError):
    """The destination has no room for it now, or says so."""


class BusyError(OutOfResourcesError):
    """The receiver has no time or no room, and may say when it will."""

    def __init__(self, message: str, *, hint: str = "", wait_s: float = 0.0) -> None:
        """Keep what went wrong, and how long it wants to be left alone, in seconds."""
        super().__init__(message, hint=hint)
        self.wait_s = wait_s
