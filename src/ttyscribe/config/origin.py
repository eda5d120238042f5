# SPDX-License-Identifier: Apache-2.0
"""Tell where an effective value came from, down to line and column."""

from __future__ import annotations

from ttyscribe.config import jsonc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttyscribe.config.loader import Layer, Loaded, V


class Origin:
    """The layer a value came from; the file, line and column where there is one.

    layer is "built-in", a file's path, "environment NAME", "symbolic link NAME" or
    "command line". line and column count from 1.
    """

    def __init__(self, layer: str, file: str | None, line: int | None, column: int | None) -> None:
        self.layer = layer
        self.file = file
        self.line = line
        self.column = column

    @property
    def text(self) -> str:
        if self.file is None:
            return self.layer
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return place if self.file == self.layer else f"{self.layer}: {place}"


def origin(loaded: Loaded[V], path: str) -> Origin:
    """Where a setting ("log.input", "session_recording.users[1]") got its value.

    Raises KeyError if there is no such setting.
    """
    path, _, index = path.removesuffix("]").partition("[")
    keys = path.split(".")
    for layer in reversed(loaded.layers):
        if has(layer.data, keys):
            return located(layer, keys, int(index) if index else None)
    raise KeyError(path)


def has(data: object, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True


def located(layer: Layer, keys: list[str], index: int | None) -> Origin:
    """The origin in a layer that has the setting."""
    if layer.file is None:
        return Origin(layer.name, None, None, None)
    node = jsonc.parse(layer.text).root
    offset = node.start if node else 0
    for key in keys:
        if node is None or key not in node.members:
            break
        offset, node = node.members[key]
    if node is not None and index is not None and index < len(node.items):
        offset = node.items[index].start
    line, column = jsonc.place(layer.text, offset)
    return Origin(layer.name, layer.file, line, column)
