"""What code does, in 16 digits: so that no result outlives the code that made it.

Comments, docstrings and layout do not count; everything else does.
"""

from __future__ import annotations

import ast
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def code_digest(paths: Iterable[Path]) -> str:
    """Return what stands for the code in some files and folders of Python.

    Args:
        paths: Files, or folders whose modules count, in any order.

    Returns:
        16 hexadecimal digits.
    """
    files: set[Path] = set()
    for path in paths:
        files |= set(path.glob("*.py")) if path.is_dir() else {path}
    told = hashlib.sha256()
    for file in sorted(files):
        tree = ast.parse(file.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(
                node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            ):
                node.body = [part for part in node.body if not _is_docstring(part)]
        told.update(f"{file.name}\0{ast.dump(tree)}\0".encode())
    return told.hexdigest()[:16]


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
