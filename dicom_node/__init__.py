"""Plumbing: receive, keep, route, mark or strip, send on, and lose nothing."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("miadmark")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"
