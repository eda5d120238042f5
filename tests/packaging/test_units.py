# SPDX-License-Identifier: Apache-2.0
"""The systemd units and what belongs to them, judged by systemd's own tools."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ttyscribe.recorder import privileges, wire

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = ROOT / "packaging" / "systemd"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, below a root that has what they start."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for source in (SYSTEMD / "system").iterdir():
        (folder / source.name).write_text(source.read_text().replace("@bindir@", "/usr/bin"))
    # What they refer to: systemd's own units, and the programs.
    for unit in Path("/usr/lib/systemd/system").iterdir():
        if not (folder / unit.name).exists() and unit.is_file():
            shutil.copyfile(unit, folder / unit.name)
    for program in ("usr/bin/ttyscribe", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o755)
    return folder


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_the_units(units: Path, tmp_path: Path) -> None:
    names = [source.name for source in (SYSTEMD / "system").iterdir()]
    assert len(names) == 2
    done = run("systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *names)
    ours = [line for line in done.stderr.splitlines() if "ttyscribe" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_is_well_confined(units: Path) -> None:
    service = units / "ttyscribe-recorder.service"
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=45", service)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_service_has_the_capabilities_that_the_program_keeps(units: Path) -> None:
    lines = (units / "ttyscribe-recorder.service").read_text().splitlines()
    named = {
        f"CAP_{name.removeprefix('CAP_')}"
        for name, number in vars(privileges).items()
        if name.startswith("CAP_") and number in privileges.FOR_SETUP
    }
    for setting in ("CapabilityBoundingSet", "AmbientCapabilities"):
        (value,) = [line.partition("=")[2] for line in lines if line.startswith(setting + "=")]
        assert set(value.split()) == named


def test_the_service_has_the_groups_that_the_program_takes(units: Path) -> None:
    lines = (units / "ttyscribe-recorder.service").read_text().splitlines()
    (groups,) = [line.partition("=")[2] for line in lines if line.startswith("SupplementaryG")]
    assert set(groups.split()) == set(privileges.GROUPS)


def test_the_socket_is_where_the_login_shell_looks(units: Path) -> None:
    lines = (units / "ttyscribe-recorder.socket").read_text().splitlines()
    assert f"ListenSequentialPacket={wire.SOCKET}" in lines
    assert "SocketMode=0666" in lines


def test_sysusers_makes_the_services_user(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = run("systemd-sysusers", f"--root={tmp_path}", SYSTEMD / "sysusers" / "ttyscribe.conf")
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "etc/passwd").read_text().splitlines()
    assert line.split(":")[0] == privileges.USER
    assert line.split(":")[6].endswith("nologin")
