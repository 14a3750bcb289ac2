"""``completion``: what makes a shell complete commands, options, files and names.

The script is static: pressing TAB starts nothing of ours, but where the name of a route
or a destination is wanted and ``--config`` was given before. Then ``miadmark config
names`` reads that file, and loads no more than it takes to read it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dicom_node.commands.tree import actions, parsers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

SHELLS: Final = ("bash", "zsh", "fish")

_NAMES: Final = {"ROUTE": "routes", "DESTINATION": "destinations"}
"""What is completed with names of a configuration, by its metavar."""

_BASH: Final = """
_miadmark_names() {
  local at config="" name
  for ((at = 1; at < COMP_CWORD; at++)); do
    [[ ${COMP_WORDS[at]} == --config ]] && config=${COMP_WORDS[at + 1]}
  done
  [[ -n $config ]] || return 0
  "${COMP_WORDS[0]}" config names "$1" "${config/#\\~/$HOME}" 2>/dev/null |
    while IFS= read -r name; do
      [[ $name == "$2"* ]] && printf '%q\\n' "$name"
    done
}
_miadmark_names_KIND() { _miadmark_names KIND "$1"; }
"""
_ZSH: Final = """
_miadmark_names_KIND() {
  local at=${words[(I)--config]} names
  (( at )) || return 1
  names=(${(f)"$(${words[1]} config names KIND ${~words[at + 1]} 2>/dev/null)"})
  compadd -a names
}
"""
_FISH: Final = """
function _miadmark_names_KIND
  set -l said (commandline -opc)
  set -l at (contains -i -- --config $said)
  or return
  $said[1] config names KIND $said[(math $at + 1)] 2>/dev/null
end
"""


def add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    root: argparse.ArgumentParser,
) -> None:
    """Add the command to the parser, whose commands it completes."""
    completion = commands.add_parser(
        "completion", help="print what makes a shell complete this command"
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=partial(_complete, root))


def _complete(root: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import shtab

    for one in parsers(root):
        for action in actions(one.parser):
            if how := _how(action, shtab):
                vars(action)["complete"] = how  # where shtab looks
    print(shtab.complete(root, options.shell))
    return 0


def _how(action: argparse.Action, shtab: Any) -> Mapping[str, object] | None:
    """Return how shtab is to complete an argument; None where it knows by itself."""
    kind = _NAMES.get(str(action.metavar))
    if kind is not None:
        name = f"_miadmark_names_{kind}"
        scripts = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
        preamble = {s: text.replace("KIND", kind) for s, text in scripts.items()}
        return {"bash": name, "zsh": name, "fish": f"({name})", "preamble": preamble}
    if action.type is not Path:
        return None
    found: Mapping[str, object] = (
        shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
    )
    return found
