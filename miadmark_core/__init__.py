"""Adversarial marks for medical images that can be taken off again without a trace.

Arrays and bytes in, arrays and bytes out: this package has never heard of DICOM, of
sockets or of a database. Its promises come in inverse pairs, each with a property test:

- :func:`~miadmark_core.embedding.embed` and :func:`~miadmark_core.embedding.remove`;
- :func:`~miadmark_core.marking.mark_image` and
  :func:`~miadmark_core.marking.restore_image`;
- :meth:`~miadmark_core.removal_key.RemovalKey.to_bytes` and
  :meth:`~miadmark_core.removal_key.RemovalKey.from_bytes`;
- :func:`~miadmark_core.sealing.record.seal` and
  :func:`~miadmark_core.sealing.record.unseal`.
"""
