"""``metrics`` and ``web``: what a node is looked at by; also beside one that runs."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import log
from dicom_node.commands import terminal
from dicom_node.commands.state import state_in
from dicom_node.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from dicom_node.config import Config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    metrics = commands.add_parser("metrics", help="figures of a node, for Prometheus")
    _add_origin(metrics)
    metrics.set_defaults(run=_metrics)


def _add_origin(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, metavar="FILE")
    command.add_argument("--parent", type=int, metavar="PID", help="who started it")
    command.add_argument("--content", type=int, metavar="FD", help="what it has read")
    command.add_argument("--log-format", type=log.Format, choices=list(log.Format))


def _metrics(options: argparse.Namespace) -> int:
    from dicom_node.vitals import Vitals
    from dicom_node.watching import Metrics
    from dicom_node.web.metrics import serve_metrics

    config = _config(options)
    log.configure(options.log_format or config.log.format)
    vitals = Vitals(config, state_in(config.node.state), terminal.now)
    serve_metrics(config.metrics or Metrics(), vitals, _told_to_stop(options))
    return 0


def _config(options: argparse.Namespace) -> Config:
    from dicom_node.config_file import load, read
    from dicom_node.supervising import content_in

    if options.content is None:
        config = load(options.config)
        if not config.node.state.is_dir():
            raise ConfigError(
                f"there is no state folder {config.node.state}",
                hint="The node makes it when it starts: miadmark serve",
            )
        return config
    return read(content_in(options.content), options.config)


def _told_to_stop(options: argparse.Namespace) -> Callable[[], None]:
    """Return what waits until told to stop, or until the node is gone."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    is_started = options.parent is not None
    signal.signal(
        signal.SIGINT, signal.SIG_IGN if is_started else lambda *_: stopping.set()
    )

    def wait() -> None:
        while not stopping.wait(0.2):
            if is_started and os.getppid() != options.parent:
                return

    return wait
