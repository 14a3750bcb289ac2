"""Finds what is wrong with an installation, and changes nothing.

Each module looks at one thing: what it needs to know is read in one function and judged
in others, which are pure. What all of them say is a
:class:`~dicom_node.doctor.finding.Finding`.
"""
