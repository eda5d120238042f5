# SPDX-License-Identifier: Apache-2.0
"""A configuration that the recorded user could change is refused for the login shell."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ttyscribe.config import ConfigError, Loaded, load
from ttyscribe.config.views import RecSession

ALICE = 54321
STAFF = 54322

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users")


@pytest.fixture
def etc() -> Iterator[Path]:
    """A folder on a path that root alone can write to."""
    with tempfile.TemporaryDirectory(dir="/etc") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "rec-session.conf").write_text('{"latency": 3}')
        (folder / "rec-session.conf.d").mkdir()
        (folder / "rec-session.conf.d/a.conf").write_text('{"payload": 64}')
        yield folder


def login(etc: Path, user: int = ALICE, groups: tuple[int, ...] = (STAFF,)) -> Loaded[RecSession]:
    return load("rec-session", folder=str(etc), user=user, groups=groups)


def test_roots_files_are_read(etc: Path) -> None:
    loaded = login(etc)
    assert (loaded.values["latency"], loaded.values["payload"]) == (3, 64)


def test_without_a_recorded_user_any_file_is_read(etc: Path) -> None:
    os.chown(etc / "rec-session.conf", ALICE, STAFF)
    assert load("rec-session", folder=str(etc)).values["latency"] == 3


@pytest.mark.parametrize("what", [".", "rec-session.conf", "rec-session.conf.d"])
def test_what_belongs_to_the_user_is_refused(etc: Path, what: str) -> None:
    os.chown(etc / what, ALICE, 0)
    with pytest.raises(ConfigError, match=f"refused, .* belongs to uid {ALICE}; run: chown root"):
        login(etc)
    assert login(etc, user=ALICE + 1).values["latency"] == 3


@pytest.mark.parametrize("what", [".", "rec-session.conf", "rec-session.conf.d"])
def test_what_anybody_can_write_to_is_refused(etc: Path, what: str) -> None:
    (etc / what).chmod(0o757)
    for user in (ALICE, 0):
        with pytest.raises(ConfigError, match="has mode 0757, so anybody can write to it"):
            login(etc, user)


@pytest.mark.parametrize("what", [".", "rec-session.conf", "rec-session.conf.d/a.conf"])
def test_what_the_users_group_can_write_to_is_refused(etc: Path, what: str) -> None:
    os.chown(etc / what, 0, STAFF)
    (etc / what).chmod(0o775)
    with pytest.raises(ConfigError, match=f"has mode 0775, so its group {STAFF} can write to it"):
        login(etc)
    assert login(etc, groups=()).values["latency"] == 3
    assert login(etc, user=0).values["latency"] == 3


def test_the_groups_are_looked_up_if_they_are_not_given(etc: Path) -> None:
    import grp
    import pwd

    user = pwd.getpwnam("daemon")
    group = grp.getgrgid(user.pw_gid)
    os.chown(etc, 0, group.gr_gid)
    etc.chmod(0o775)
    with pytest.raises(ConfigError, match=f"its group {group.gr_gid} can write"):
        load("rec-session", folder=str(etc), user=user.pw_uid)


# An access control list's version, and the entries for the owner, the mask and all others.
VERSION = struct.pack("<I", 2)
OWNER, MASK, OTHERS = (1, 7, 2**32 - 1), (16, 7, 2**32 - 1), (32, 5, 2**32 - 1)


def set_acl(path: Path, *entries: tuple[int, int, int]) -> None:
    """Give path a list of entries: tag (2 a user, 4 its group, 8 a group), permissions, id."""
    whole = sorted([OWNER, MASK, OTHERS, *entries])
    data = VERSION + b"".join(struct.pack("<HHI", *entry) for entry in whole)
    os.setxattr(path, "system.posix_acl_access", data)


@pytest.mark.parametrize("what", [".", "rec-session.conf", "rec-session.conf.d/a.conf"])
def test_what_the_user_can_write_to_by_an_access_control_list_is_refused(
    etc: Path, what: str
) -> None:
    set_acl(etc / what, (2, 7, ALICE), (4, 5, 2**32 - 1))
    with pytest.raises(ConfigError, match=f"uid {ALICE} can write to it by its access control"):
        login(etc)
    assert login(etc, user=ALICE + 1).values["latency"] == 3
    assert login(etc, user=0).values["latency"] == 3
    set_acl(etc / what, (2, 5, ALICE), (4, 5, 2**32 - 1), (8, 7, STAFF))
    with pytest.raises(ConfigError, match=f"its group {STAFF} can write to it"):
        login(etc)
    assert login(etc, groups=()).values["latency"] == 3
    os.chown(etc / what, 0, STAFF)
    set_acl(etc / what, (2, 7, ALICE + 1), (4, 7, 2**32 - 1))
    with pytest.raises(ConfigError, match=f"its group {STAFF} can write to it"):
        login(etc)
    # The mode that the group seems to have is another's.
    set_acl(etc / what, (2, 7, ALICE + 1), (4, 5, 2**32 - 1))
    assert login(etc).values["latency"] == 3


def test_the_remedy_that_is_told_is_one_against_an_access_control_list(etc: Path) -> None:
    set_acl(etc / "rec-session.conf", (2, 7, ALICE), (4, 5, 2**32 - 1))
    with pytest.raises(ConfigError) as caught:
        login(etc)
    subprocess.run(str(caught.value).partition("run: ")[2], shell=True, check=True)
    assert login(etc).values["latency"] == 3


def test_a_usual_file_costs_no_look_at_its_access_control_list(
    etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> bytes:
        raise AssertionError("it is looked at")

    monkeypatch.setattr(os, "getxattr", never)
    assert login(etc).values["latency"] == 3


def test_whoevers_groups_cannot_be_told_may_be_in_any(etc: Path) -> None:
    os.chown(etc, 0, STAFF)
    assert load("rec-session", folder=str(etc), user=ALICE).values["latency"] == 3
    etc.chmod(0o775)
    why = f"its group {STAFF} can write to it, which uid {ALICE} may be in.* does not know the user"
    with pytest.raises(ConfigError, match=why):
        load("rec-session", folder=str(etc), user=ALICE)


def test_a_link_of_the_user_is_refused(etc: Path) -> None:
    (etc / "rec-session.conf").rename(etc / "real.conf")
    (etc / "rec-session.conf").symlink_to("real.conf")
    assert login(etc).values["latency"] == 3
    os.lchown(etc / "rec-session.conf", ALICE, 0)
    with pytest.raises(ConfigError, match="belongs to uid"):
        login(etc)


def test_a_link_into_a_folder_of_the_user_is_refused(etc: Path, tmp_path: Path) -> None:
    (etc / "theirs").mkdir()
    os.chown(etc / "theirs", ALICE, 0)
    (etc / "theirs/x.conf").write_text("{}")
    (etc / "rec-session.conf.d/b.conf").symlink_to("../theirs/../theirs/x.conf")
    with pytest.raises(ConfigError, match=rf"b\.conf: refused, .*/theirs belongs to uid {ALICE}"):
        login(etc)


def test_links_in_a_circle_are_an_error(etc: Path) -> None:
    (etc / "rec-session.conf.d/b.conf").symlink_to("b.conf")
    with pytest.raises(ConfigError, match="too many symbolic links"):
        login(etc)


@pytest.mark.parametrize(
    "what", ["rec-session.conf", "rec-session.conf.d/a.conf", "rec-session.conf.d", "."]
)
@pytest.mark.parametrize("user", [ALICE, None])
def test_a_link_that_leads_nowhere_is_not_the_same_as_no_file(
    etc: Path, what: str, user: int | None
) -> None:
    folder = etc / "inner"
    shutil.copytree(etc, folder)
    link = folder / what
    link.rename(etc / "elsewhere")
    assert load("rec-session", folder=str(folder), user=user, groups=()).values
    link.symlink_to("../nowhere")
    with pytest.raises(ConfigError, match=f"the link {link} leads to ../nowhere, which is not"):
        load("rec-session", folder=str(folder), user=user, groups=())


def test_in_a_sticky_folder_only_what_belongs_to_the_user_is_refused(etc: Path) -> None:
    etc.chmod(0o1777)
    assert login(etc).values["latency"] == 3
    os.chown(etc / "rec-session.conf", ALICE, 0)
    with pytest.raises(ConfigError, match="belongs to uid"):
        login(etc)


@pytest.mark.parametrize("mode", [0o1757, 0o1775])
def test_a_sticky_folder_that_the_user_could_add_a_drop_in_to_is_refused(
    etc: Path, mode: int
) -> None:
    os.chown(etc / "rec-session.conf.d", 0, STAFF)
    (etc / "rec-session.conf.d").chmod(mode)
    with pytest.raises(ConfigError, match=rf"rec-session\.conf\.d: refused, .* mode {mode:04o}"):
        login(etc)


def test_a_sticky_folder_of_the_user_is_refused(etc: Path) -> None:
    etc.chmod(0o1755)
    os.chown(etc, ALICE, 0)
    with pytest.raises(ConfigError, match="belongs to uid"):
        login(etc)


def test_root_reads_what_belongs_to_root(etc: Path) -> None:
    assert login(etc, user=0, groups=(0,)).values["latency"] == 3


def test_no_descriptor_is_left_open(etc: Path) -> None:
    before = os.listdir("/proc/self/fd")
    login(etc)
    os.chown(etc / "rec-session.conf.d/a.conf", ALICE, 0)
    with pytest.raises(ConfigError):
        login(etc)
    assert os.listdir("/proc/self/fd") == before
