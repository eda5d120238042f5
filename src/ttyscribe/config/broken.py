# SPDX-License-Identifier: Apache-2.0
"""What the login shell's configuration says about a failure, when the failure is its own."""

from __future__ import annotations

from ttyscribe.config import fast, trust
from ttyscribe.config.loader import (
    FOLDER,
    SHELLS,
    TLOG_FOLDER,
    built_in,
    default_file,
    shell_layers,
)
from ttyscribe.config.shell import is_login_shell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ttyscribe.config.views import RecSession

_ASKED = ("on_failure", "on_failure_root", "shell")


def values_at_failure(
    environ: Mapping[str, str], name: str, user: int, folder: str | None = None
) -> RecSession:
    """The built-in values, with the outcome and the shell that the admin chose.

    For a configuration that load refused; arguments as load's. The choice counts if
    all files can be read and parsed, and it is valid itself: a mistake elsewhere in
    them takes nothing from it. If not, it might be another than what we see.
    """
    values = built_in("rec-session")
    try:
        values.update(_chosen(environ, name, user, folder))
    except Exception:  # noqa: S110 - whatever it is, a failure must come to an outcome
        pass
    return values  # type: ignore[return-value]  # the model's own defaults, and valid values


def _chosen(
    environ: Mapping[str, str], name: str, user: int, folder: str | None
) -> dict[str, object]:
    """The valid choices of all files, the environment and the name; raises what they raise."""
    schema = fast.load_schema("rec-session")
    parts: Mapping[str, fast.Schema] = schema["properties"]  # type: ignore[assignment]
    name = name.rpartition("/")[2].removeprefix("-")
    tlog = name.startswith("tlog-")
    if folder is None:
        folder = TLOG_FOLDER if tlog else FOLDER
    path = default_file("rec-session", folder, tlog)
    judge = trust.User(user)
    chosen: dict[str, object] = {}
    for file in (path, *trust.drop_ins(path + ".d", judge)):
        text = trust.read(file, judge)
        data = fast.parse(text) if text is not None else {}
        if not isinstance(data, dict):
            raise fast.Refused
        for key in _ASKED:
            if key in data:
                chosen[key] = fast.validate(data[key], parts[key])
    for layer in shell_layers(schema, environ, name, None if tlog else SHELLS, []):
        chosen.update(layer.data)
    if is_login_shell(str(chosen.get("shell", ""))):
        # It would come here again, without end.
        del chosen["shell"]
    return chosen
