# SPDX-License-Identifier: Apache-2.0
"""The rules from SSSD's configuration, with real files and SSSD's own parser as the judge."""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ttyscribe import policy
from ttyscribe.errors import PolicyError
from ttyscribe.policy import sssd

MAIN = "[sssd]\nservices = nss\n\n[session_recording]\nscope = some\nusers = alice, bob\n"


class Sssd:
    """A folder that stands for /etc/sssd."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "sssd.conf"
        self.snippets = folder / "conf.d"
        self.snippets.mkdir()

    def write(self, text: str | bytes, snippet: str = "", mode: int = 0o600) -> Path:
        path = self.snippets / snippet if snippet else self.conf
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def read(self) -> policy.Rules:
        return sssd.read(str(self.conf), str(self.snippets))

    def refusal(self) -> str:
        with pytest.raises(PolicyError) as caught:
            self.read()
        message = str(caught.value)
        assert "\n" not in message
        return message


@pytest.fixture
def etc(tmp_path: Path) -> Sssd:
    return Sssd(tmp_path)


def test_the_main_file_gives_the_rules_and_their_lines(etc: Sssd) -> None:
    etc.write(MAIN + "groups = domain users ,, wheel\n")
    rules = etc.read()
    assert rules.scope == "some"
    assert rules.users == ["alice", "bob"]
    assert rules.groups == ["domain users", "wheel"]
    assert rules.exclude_users == []
    assert rules.origin("scope") == f"{etc.conf}:5"
    assert rules.origin("users") == f"{etc.conf}:6"
    assert "SSSD's default" in rules.origin("exclude_users")


def test_the_configuration_can_name_sssd_as_its_source(etc: Sssd) -> None:
    etc.write("[session_recording]\nscope = some\nusers = root\n")
    values = {"session_recording": {"scope": "none", "source": "sssd"}}
    decision = policy.for_login(
        values, str, 0, sssd_conf=str(etc.conf), sssd_snippets=str(etc.snippets)
    )
    assert decision.recorded
    assert decision.origin == f"{etc.conf}:3"


def test_a_later_snippet_wins_option_by_option(etc: Sssd) -> None:
    etc.write(MAIN)
    etc.write("[session_recording]\nusers = carol\ngroups = a\n", "10-first.conf")
    second = etc.write("[session_recording]\nusers = dave\n", "20-second.conf")
    rules = etc.read()
    assert (rules.scope, rules.users, rules.groups) == ("some", ["dave"], ["a"])
    assert rules.origin("users") == f"{second}:2"
    assert rules.origin("scope") == f"{etc.conf}:5"


def test_snippets_count_in_order_of_name_not_of_number_or_time(etc: Sssd) -> None:
    etc.write(MAIN)
    etc.write("[session_recording]\nusers = nine\n", "9.conf")
    etc.write("[session_recording]\nusers = ten\n", "10.conf")
    assert etc.read().users == ["nine"]


def test_hidden_files_and_other_suffixes_are_left_out(etc: Sssd) -> None:
    etc.write(MAIN)
    for name in (".hidden.conf", "x.conf~", "x.conf.rpmsave", "x.CONF", "README"):
        etc.write("this is [ no configuration", name, mode=0o666)
    assert etc.read().users == ["alice", "bob"]


def test_an_empty_value_in_a_snippet_takes_a_list_back(etc: Sssd) -> None:
    etc.write(MAIN)
    etc.write("[session_recording]\nusers =\n", "clear.conf")
    assert etc.read().users == []


def test_snippets_alone_are_enough(etc: Sssd) -> None:
    etc.write("[session_recording]\nscope = all\n", "rec.conf")
    assert etc.read().scope == "all"


def test_the_main_file_alone_is_enough(etc: Sssd) -> None:
    etc.write(MAIN)
    etc.snippets.rmdir()
    assert etc.read().scope == "some"


def test_without_the_section_nobody_is_recorded_as_with_sssd(etc: Sssd) -> None:
    etc.write("[sssd]\nservices = nss\n")
    rules = etc.read()
    assert rules.scope == "none"
    assert "SSSD's default" in rules.origin("scope")
    assert str(etc.conf) in rules.origin("scope")


def test_the_scope_may_be_in_capitals(etc: Sssd) -> None:
    etc.write("[session_recording]\nscope = ALL\n")
    assert etc.read().scope == "all"


def test_an_option_that_sssd_does_not_know_is_warned_about(etc: Sssd) -> None:
    etc.write("[session_recording]\ndescription = x\nscope = some\nuser = alice\n")
    [warning] = etc.read().warnings
    assert f"{etc.conf}:4" in warning
    assert "'user'" in warning


def test_no_file_at_all_is_an_error_and_not_nobody(etc: Sssd) -> None:
    message = etc.refusal()
    assert str(etc.conf) in message
    assert str(etc.snippets) in message


# what is wrong: (the file's bytes, its line, what the message says)
MALFORMED: dict[str, tuple[bytes, int, str]] = {
    "a scope that does not exist": (b"[session_recording]\nscope = most\n", 2, "'most'"),
    "an empty scope": (b"[session_recording]\nscope =\n", 2, "none, some or all"),
    "a line without =": (b"[session_recording]\nscope\n", 2, "'=' is missing"),
    "a colon for =": (b"[session_recording]\nscope: all\n", 2, "'=' is missing"),
    "a continuation line": (b"[session_recording]\nusers = a,\n  b\n", 3, "'=' is missing"),
    "a value without a key": (b"[session_recording]\n = all\n", 2, "no name before"),
    "an open bracket": (b"[sssd]\n\n[session_recording\nscope = all\n", 3, "']' is missing"),
    "text after the bracket": (b"[session_recording] x\n", 1, "']' is missing"),
    "a section without a name": (b"[ ]\nscope = all\n", 1, "no name"),
    "an option before any section": (b"scope = all\n[a]\n", 1, "before the first section"),
    "an indented section": (b"\n  [session_recording]\n", 2, "'=' is missing"),
    "an indented comment": (b"[a]\n # x\n", 2, "'=' is missing"),
    "a comment as in C": (b"[a]\n/* x = y\nscope=z */\n", 2, "comment"),
    "a broken line in another section": (b"[session_recording]\nscope=all\n[x]\ny\n", 4, "'='"),
    "an option's name that only looks right": (
        "[session_recording]\nsc\u043epe = all\n".encode(), 2, "not ASCII",
    ),
    "a section's name that only looks right": (
        "[sessi\u043en_recording]\nscope = all\n".encode(), 1, "not ASCII",
    ),
    "Latin-1": (b"[session_recording]\nusers = J\xfcrgen\n", 2, "UTF-8"),
    "a zero byte": (b"[session_recording]\n\nusers = a\0b\n", 3, "zero byte"),
    "UTF-16": ("[session_recording]\nscope = all\n".encode("utf-16"), 1, "zero byte"),
}  # fmt: skip


@pytest.mark.parametrize("snippet", ["", "10-x.conf"], ids=["in sssd.conf", "in a snippet"])
@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_is_an_error_with_its_line(
    etc: Sssd, case: tuple[bytes, int, str], snippet: str
) -> None:
    data, line, what = case
    if snippet:
        etc.write(MAIN)
    path = etc.write(data, snippet)
    message = etc.refusal()
    assert message.startswith(f"{path}:{line}: ")
    assert what in message


def test_an_empty_file_is_an_error(etc: Sssd) -> None:
    path = etc.write(b"")
    assert etc.refusal().startswith(f"{path}: is empty")


def test_a_huge_file_is_an_error(etc: Sssd) -> None:
    path = etc.write(b"# x\n" * 300_000)
    assert etc.refusal().startswith(f"{path}: has more than")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o620, 0o666], ids=oct)
def test_a_file_that_others_may_use_is_refused(etc: Sssd, mode: int) -> None:
    path = etc.write(MAIN, mode=mode)
    message = etc.refusal()
    assert message.startswith(f"{path}: has mode {mode:04o}")
    assert f"chmod 600 {path}" in message


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640], ids=oct)
def test_a_file_that_only_its_owner_may_change_is_taken(etc: Sssd, mode: int) -> None:
    etc.write(MAIN, mode=mode)
    assert etc.read().scope == "some"


def test_a_snippet_that_others_may_use_is_refused(etc: Sssd) -> None:
    etc.write(MAIN)
    path = etc.write("[session_recording]\nscope = none\n", "x.conf", mode=0o644)
    assert etc.refusal().startswith(f"{path}: has mode 0644")


def test_a_file_of_another_user_is_refused(etc: Sssd) -> None:
    path = etc.write(MAIN)
    os.chown(path, 65534, 0)
    message = etc.refusal()
    assert message.startswith(f"{path}: belongs to uid 65534")
    assert "root" in message


def test_a_file_of_sssds_own_user_is_taken(etc: Sssd) -> None:
    path = etc.write(MAIN)
    os.chown(path, pwd.getpwnam("sssd").pw_uid, 0)
    assert etc.read().scope == "some"


def test_a_folder_or_fifo_in_the_files_place_is_refused_at_once(etc: Sssd) -> None:
    etc.conf.mkdir(mode=0o700)
    assert etc.refusal() == f"{etc.conf}: is not a regular file, which SSSD demands"
    etc.conf.rmdir()
    os.mkfifo(etc.conf, 0o600)
    assert "regular file" in etc.refusal()


def test_an_unreadable_file_is_an_error_and_not_nobody(etc: Sssd, tmp_path: Path) -> None:
    """As an unprivileged user's login shell would meet it."""
    etc.write(MAIN)
    assert "can't be read: Permission denied" in read_as_nobody(etc, tmp_path)
    assert str(etc.conf) in read_as_nobody(etc, tmp_path)


def test_an_unreadable_folder_of_snippets_is_an_error(etc: Sssd, tmp_path: Path) -> None:
    etc.snippets.chmod(0o700)
    assert f"{etc.snippets}: can't be read: Permission denied" in read_as_nobody(etc, tmp_path)


def read_as_nobody(etc: Sssd, tmp_path: Path) -> str:
    """The PolicyError that user nobody gets."""
    for folder in tmp_path, *tmp_path.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    program = (
        "import os, sys\nfrom ttyscribe.errors import PolicyError\n"
        "from ttyscribe.policy import sssd\n"
        "os.setgroups([])\nos.setresgid(65534, 65534, 65534)\nos.setresuid(65534, 65534, 65534)\n"
        "try:\n    sssd.read(*sys.argv[1:])\nexcept PolicyError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program, etc.conf, etc.snippets],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return run.stdout


class Libini:
    """libini_config, called as SSSD calls it (src/util/sss_ini.c: overwrite, no wrapping)."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libini_config.so.5")
        self.references = ctypes.CDLL("libref_array.so.1")
        self.library.ini_get_section_list.restype = ctypes.POINTER(ctypes.c_char_p)
        self.library.ini_get_attribute_list.restype = ctypes.POINTER(ctypes.c_char_p)
        self.library.ini_get_const_string_config_value.restype = ctypes.c_char_p

    def read(self, conf: Path, snippets: Path) -> dict[str, str] | None:
        """The options of [session_recording] as SSSD has them, None where it gives up."""
        ini = self.library
        opened, config = ctypes.c_void_p(), ctypes.c_void_p()
        if ini.ini_config_file_open(os.fsencode(conf), 1, ctypes.byref(opened)):
            return None
        assert ini.ini_config_create(ctypes.byref(config)) == 0
        try:
            if ini.ini_config_parse(opened, 0, 0, 1, config):
                return None
            merged, failed, used = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
            patterns = (ctypes.c_char_p * 2)(rb"^[^\.].*\.conf$", None)
            sections = (ctypes.c_char_p * 2)(b".*", None)
            status = ini.ini_config_augment(
                *(config, os.fsencode(snippets), patterns, sections, None, 0, 0, 1, 0),
                *(ctypes.byref(merged), ctypes.byref(failed), ctypes.byref(used)),
            )
            if status:
                return None
            result = self.options(merged if merged else config)
            complete = not self.references.ref_array_len(failed)
            if merged:
                ini.ini_config_destroy(merged)
            return result if complete else None
        finally:
            ini.ini_config_file_destroy(opened)
            ini.ini_config_destroy(config)

    def options(self, config: ctypes.c_void_p) -> dict[str, str]:
        ini = self.library
        found = {}
        count, error = ctypes.c_int(), ctypes.c_int()
        names = ini.ini_get_section_list(config, ctypes.byref(count), ctypes.byref(error))
        for section in names[: count.value]:
            if section.lower() != b"session_recording":
                continue
            keys = ini.ini_get_attribute_list(
                config, section, ctypes.byref(count), ctypes.byref(error)
            )
            for key in keys[: count.value]:
                value = ctypes.c_void_p()
                ini.ini_get_config_valueobj(section, key, config, 0, ctypes.byref(value))
                text = ini.ini_get_const_string_config_value(value, ctypes.byref(error))
                found[key.decode().lower()] = text.decode()
        return found


GOOD = st.sampled_from(
    [
        *("[session_recording]", "[SESSION_Recording] ", "[ session_recording ]", "[sssd]"),
        *("scope = some", "SCOPE=all", "scope=none", "  scope = some", "x = y", "", "   "),
        *("users = a, b", "users=c", "Users = d = e", "users =", "\tgroups = x y ,z"),
        *("groups = a # b", "exclude_users = 'q'", "exclude_groups=r\r", " # a = b", " ; users=n"),
        *("# x", "#users = no", "; scope = none", "//scope = none", "// x", "users = \\"),
        *("users = \u00a0a\u2028b", "/* a = b\nscope = all\nusers = z */", "scope=all /* x"),
    ]
)
ODD = st.sampled_from(
    [
        *("[session_recording", "[]", "[session_recording]x", " [sssd]", "[a]b]", "scope: all"),
        *("scope", "users", "  continued", "/* x */", " */", "=", " = x", "\ufeffusers = x"),
    ]
)
# An odd line in one file of a few, so that most files can be compared.
LINES = st.integers(0, 15).flatmap(lambda number: GOOD if number else ODD)
TEXTS = st.lists(LINES, min_size=1, max_size=6).map("\n".join)
PREFIXED = st.builds("{}\n{}\n".format, st.sampled_from(["[session_recording]", "[x]"]), TEXTS)


@given(st.one_of(PREFIXED, TEXTS), st.lists(PREFIXED, max_size=3))
@example("[session_recording]\nscope = all\n", ["[session_recording]\nusers = a\n"])
@settings(
    deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_sssds_parser_reads_is_read_alike_or_refused(
    tmp_path_factory: pytest.TempPathFactory, main: str, snippets: list[str]
) -> None:
    etc = Sssd(tmp_path_factory.mktemp("sssd"))
    etc.write(main)
    for index, text in enumerate(snippets):
        etc.write(text, f"{'bac'[index]}.conf")
    judge = Libini().read(etc.conf, etc.snippets)
    try:
        rules = etc.read()
    except PolicyError:
        return
    assert judge is not None, "SSSD would refuse it"
    assert rules.scope == (judge.get("scope", "") or "none").lower()
    for option in ("users", "groups", "exclude_users", "exclude_groups"):
        listed = [item.strip(" \t\r\n\f\v") for item in judge.get(option, "").split(",")]
        assert getattr(rules, option) == [item for item in listed if item], option


def test_sssds_parser_and_ours_agree_on_a_plain_configuration(etc: Sssd) -> None:
    """So that the property above is not kept by refusing everything."""
    etc.write(MAIN)
    etc.write("[SESSION_RECORDING]\nUsers = x\n; note\n exclude_users = y", "b.conf")
    etc.write("# note\n[session_recording]\nusers = z\n\n[domain/a]\nid_provider=ldap\n", "a.conf")
    judge = Libini().read(etc.conf, etc.snippets)
    assert judge == {"scope": "some", "users": "x", "exclude_users": "y"}
    rules = etc.read()
    assert (rules.scope, rules.users, rules.exclude_users) == ("some", ["x"], ["y"])
