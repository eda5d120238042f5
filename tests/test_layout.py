# SPDX-License-Identifier: Apache-2.0
"""The rooms of the house import only what they may, and the login path nothing heavy."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "ttyscribe"

# Every room may import these modules; which are no rooms, and import no room.
COMMON = {"bounded", "errors", "events", "__version__"}
# The rooms that a room may import, for types as well as at run time. cli may import all.
ARROWS: dict[str, set[str]] = {
    "config": set(),
    "policy": set(),
    "terminal": set(),
    "tlog": set(),
    "readers": set(),
    "writers": {"config"},  # the types of a writer's settings
    "session": {"config", "terminal", "tlog", "writers"},
    "recorder": {"config", "policy", "session", "terminal", "writers"},
    "player": {"readers", "tlog"},
    "launcher": {"cli"},
    "__main__": {"cli"},
}

# Each of these costs a login more than its own work takes.
HEAVY = {
    "argparse", "dataclasses", "enum", "json", "logging", "orjson", "pathlib", "pydantic", "re",
    "subprocess", "typing",
}  # fmt: skip
LOGIN_PATH = (
    "ttyscribe.launcher.main",
    "ttyscribe.cli.rec_session",
    "ttyscribe.config",
    "ttyscribe.config.broken",
    "ttyscribe.policy",
    "ttyscribe.recorder.client",
    "ttyscribe.recorder.reach",
    "ttyscribe.recorder.wire",
    "ttyscribe.session",
    "ttyscribe.session.alert",
    "ttyscribe.session.git",
    "ttyscribe.session.lock",
    "ttyscribe.session.setup",
    "ttyscribe.session.outage",
    "ttyscribe.session.skip",
    "ttyscribe.session.skipped",
    "ttyscribe.session.utmp",
    "ttyscribe.terminal",
    "ttyscribe.terminal.leader",
    "ttyscribe.tlog",
    "ttyscribe.writers.file",
    "ttyscribe.writers.journal",
    "ttyscribe.writers.journald",
    "ttyscribe.writers.limit",
    "ttyscribe.writers.syslog",
)
# A whole login in direct mode, with a configuration of its own and no service.
LOGIN = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from ttyscribe.config import loader
from ttyscribe.recorder import reach
loader.FOLDER = sys.argv[2]
reach.connect = lambda: None
from ttyscribe.cli.rec_session import launched
environ = {b"PATH": os.environb[b"PATH"], b"XDG_STATE_HOME": os.fsencode(sys.argv[2])}
status = launched("-ttyscribe-rec-session", ["-c", "exit 7"], environ)
print(status, *sys.modules)
"""


def imported_modules(source: str) -> Iterator[str]:
    """The modules of ours that a module's source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            # "from ttyscribe import config" imports a room, too.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("ttyscribe."))


def room_of(module: str) -> str:
    return module.split(".")[1]


def wrong_arrows(room: str, source: str) -> set[str]:
    """The rooms that source, which is in a room, imports and may not."""
    reached = {room_of(module) for module in imported_modules(source)}
    return reached - COMMON - ARROWS.get(room, set()) - {room}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module's room and path, but for those of cli."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("cli", "__init__"):
            yield room, path


def loaded_by(code: str, *arguments: str) -> list[str]:
    """The words that code prints, in an interpreter as the login shell starts it."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", code, str(SOURCE), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def heavy_after_import(module: str) -> set[str]:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import {}; print(*sys.modules)"
    loaded = loaded_by(code.format(module))
    assert module in loaded
    return HEAVY & set(loaded)


@pytest.mark.parametrize(
    ("room", "path"), [pytest.param(*m, id=str(m[1].relative_to(PACKAGE))) for m in modules()]
)
def test_an_arrow_only_points_down(room: str, path: Path) -> None:
    assert room in ARROWS or room in COMMON, f"say in ARROWS what the new room {room} may import"
    assert wrong_arrows(room, path.read_text()) == set()


def test_the_rooms_below_import_nothing_of_each_other() -> None:
    below = {"terminal", "tlog", "writers", "readers"}
    assert all(not ARROWS[room] & below for room in below)
    assert [room for room, allowed in ARROWS.items() if "cli" in allowed] == [
        "launcher",
        "__main__",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "from ttyscribe.cli import complain",
        "from ttyscribe import cli",
        "import ttyscribe.cli.rec as rec",
        "def late():\n    from ttyscribe.cli import complain",
        "if TYPE_CHECKING:\n    from ttyscribe.cli.rec import main",
    ],
)
def test_an_import_of_any_form_is_noticed(line: str) -> None:
    assert wrong_arrows("session", line) == {"cli"}


@pytest.mark.parametrize("module", LOGIN_PATH)
def test_a_module_of_the_login_path_imports_nothing_heavy(module: str) -> None:
    assert heavy_after_import(module) == set()


def test_a_heavy_import_is_noticed() -> None:
    assert {"argparse", "re"} <= heavy_after_import("ttyscribe.cli.rec")


@pytest.mark.skipif(os.geteuid() != 0, reason="a login's configuration must be root's")
def test_a_whole_login_without_the_service_imports_nothing_heavy(tmp_path: Path) -> None:
    recorded = tmp_path / "rec.tlog"
    (tmp_path / "rec-session.conf").write_text(
        json.dumps({"writer": "file", "file": {"path": str(recorded)}, "lock": "none"})
    )
    status, *loaded = loaded_by(LOGIN, str(tmp_path))
    assert status == "7"
    assert '"event":"end"' in recorded.read_text().replace(" ", "")
    assert HEAVY & set(loaded) == set()
