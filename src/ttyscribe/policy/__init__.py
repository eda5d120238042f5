# SPDX-License-Identifier: Apache-2.0
"""Who is recorded: scope, users, groups and exclusions, with SSSD's meaning.

What the login path calls, in the login shell and in the recorder service:

    decision = policy.for_login(loaded.values, loaded.origin, uid, login=name)
    for warning in decision.warnings: ...   # belongs in the log
    if not decision.recorded: ...           # become the real shell at once

values is the effective configuration, of which values["session_recording"] is
used; origin(key) tells where a key such as "session_recording.users[1]" was
set, and is called only when decision.origin is read: that is not free.
It raises PolicyError when the rules can't be read, which is the same kind of
failure as a broken configuration: never "not recorded".

A look-up that fails or hangs means recorded, with a warning. Look-ups are made
in a forked child and given up after LOOKUP_TIMEOUT seconds (bounded.py), so the
caller must be single-threaded; nothing is looked up that no rule asks for.

Light on purpose: no argparse, typing, dataclasses or json, and the reader of
SSSD's configuration only where it is the source.
"""

from __future__ import annotations

from ttyscribe.errors import PolicyError
from ttyscribe.policy.lookup import LOOKUP_TIMEOUT, look_up
from ttyscribe.policy.rules import Decision, Groups, Rules, decide, needs_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "for_login",
    "for_user",
    "login_of",
    "rules_from",
    "decide",
    "Decision",
    "Groups",
    "Rules",
    "LOOKUP_TIMEOUT",
    "SSSD_CONF",
    "SSSD_SNIPPETS",
]

# Where SSSD reads its configuration, sssd.conf(5).
SSSD_CONF = "/etc/sssd/sssd.conf"
SSSD_SNIPPETS = "/etc/sssd/conf.d"


def for_login(
    values: Mapping[str, object],
    origin: Callable[[str], str],
    uid: int,
    login: str = "",
    timeout: float = LOOKUP_TIMEOUT,
    sssd_conf: str = SSSD_CONF,
    sssd_snippets: str = SSSD_SNIPPETS,
) -> Decision:
    """Decide for the user who logs in as uid.

    login is the name they logged in by; it counts where it has that uid, so
    that of several names with one uid the right one is judged. timeout is in
    seconds. Raises PolicyError when the rules can't be read.
    """
    rules = rules_from(values, origin, sssd_conf, sssd_snippets)
    return _decided(rules, uid, login, timeout)


def for_user(
    values: Mapping[str, object],
    origin: Callable[[str], str],
    name: str,
    timeout: float = LOOKUP_TIMEOUT,
    sssd_conf: str = SSSD_CONF,
    sssd_snippets: str = SSSD_SNIPPETS,
) -> Decision:
    """Decide for the user of this name, as for_login() would at their login.

    Raises PolicyError when the rules can't be read, and when the name service
    doesn't know the user: whom it is asked about must exist.
    """
    rules = rules_from(values, origin, sssd_conf, sssd_snippets)
    return _decided(rules, name, "", timeout)


def login_of(name: str, timeout: float = LOOKUP_TIMEOUT) -> tuple[int, str]:
    """A user's uid and login shell. Raises PolicyError if the name service doesn't tell."""
    account = look_up(name, "", lambda _: False, (), timeout)
    if not account.name:
        raise PolicyError(f"can't tell: user '{name}' {account.failure}")
    return account.uid, account.shell


def rules_from(
    values: Mapping[str, object],
    origin: Callable[[str], str],
    sssd_conf: str = SSSD_CONF,
    sssd_snippets: str = SSSD_SNIPPETS,
) -> Rules:
    """The rules in force: the configuration's own, or SSSD's if "source" says so.

    Raises PolicyError naming the file and line when SSSD's can't be read.
    """
    section = values["session_recording"]
    if not isinstance(section, dict):
        raise PolicyError("session_recording is not an object; give it the members of the manual")
    if section.get("source") == "sssd":
        from ttyscribe.policy import sssd

        return sssd.read(sssd_conf, sssd_snippets)
    return Rules(
        scope=section["scope"],
        users=section["users"],
        groups=section["groups"],
        exclude_users=section["exclude_users"],
        exclude_groups=section["exclude_groups"],
        origin=lambda option: origin(f"session_recording.{option}"),
    )


def _decided(rules: Rules, who: int | str, login: str, timeout: float) -> Decision:
    """Look up what the rules ask for, and decide."""
    if rules.scope == "none" and isinstance(who, int):
        return decide("", rules, None)
    listed = rules.groups if rules.scope == "some" else rules.exclude_groups
    account = look_up(who, login, lambda name: needs_groups(name, rules), listed, timeout)
    if account.name:
        return decide(account.name, rules, account.groups)
    if isinstance(who, str):
        raise PolicyError(f"can't tell: user '{who}' {account.failure}")
    rule = f"scope '{rules.scope}', and the user's name is not known: recorded to be safe"
    warning = f"uid {who} is recorded, though it {account.failure}"
    warnings = (*rules.warnings, warning)
    return Decision(True, rule, lambda: rules.origin("scope"), "", None, warnings)
