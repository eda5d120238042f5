# SPDX-License-Identifier: Apache-2.0
"""The rules and the decision, apart from where either's facts come from.

The meaning of each option is that of sssd-session-recording(5): users and
groups count with scope "some", the exclusions with scope "all"; names are
compared exactly, as the name service returns them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCOPES = ("none", "some", "all")


class Rules:
    """Who is recorded.

    origin(option) tells where an option was set, for people: "file:line". For an
    element of a list it is asked for "users[1]". warnings are about the rules
    themselves, for the log.
    """

    __slots__ = (
        "exclude_groups",
        "exclude_users",
        "groups",
        "origin",
        "scope",
        "users",
        "warnings",
    )

    def __init__(
        self,
        scope: str,
        users: Sequence[str],
        groups: Sequence[str],
        exclude_users: Sequence[str],
        exclude_groups: Sequence[str],
        origin: Callable[[str], str],
        warnings: Sequence[str] = (),
    ) -> None:
        self.scope = scope
        self.users = users
        self.groups = groups
        self.exclude_users = exclude_users
        self.exclude_groups = exclude_groups
        self.origin = origin
        self.warnings = tuple(warnings)


class Groups:
    """The names of a user's groups; failure says why some may be missing, or is empty."""

    __slots__ = ("failure", "names")

    def __init__(self, names: Sequence[str], failure: str = "") -> None:
        self.names = tuple(names)
        self.failure = failure


class Decision:
    """Recorded or not, and why.

    rule is a sentence for a person and origin where that rule was set, found out
    when it is asked for. user is the name that was judged, "" if it was not needed
    or could not be looked up. groups are the names of the user's groups, None where
    no rule asked for them.
    """

    __slots__ = ("_origin", "groups", "recorded", "rule", "user", "warnings")

    def __init__(
        self,
        recorded: bool,
        rule: str,
        origin: Callable[[], str],
        user: str,
        groups: tuple[str, ...] | None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.recorded = recorded
        self.rule = rule
        self._origin = origin
        self.user = user
        self.groups = groups
        self.warnings = warnings

    @property
    def origin(self) -> str:
        return self._origin()


def needs_groups(user: str, rules: Rules) -> bool:
    """Whether the user's groups make a difference under these rules."""
    if rules.scope == "some":
        return bool(rules.groups) and user not in rules.users
    if rules.scope == "all":
        return bool(rules.exclude_groups) and user not in rules.exclude_users
    return False


def decide(user: str, rules: Rules, groups: Groups | None) -> Decision:
    """Judge a user by name and groups; groups may be None unless needs_groups().

    Where the groups are not known for certain, the user is recorded, with a
    warning, unless a rule that certainly holds says otherwise.
    """
    if rules.scope == "none":
        recorded, option, rule = False, "scope", "scope 'none' records nobody"
    elif rules.scope == "some":
        recorded, option, rule = _some(user, rules, groups)
    else:
        recorded, option, rule = _all(user, rules, groups)
    names = None if groups is None else groups.names
    warnings = rules.warnings
    if groups is not None and groups.failure:
        outcome = "is recorded" if recorded else "is not recorded"
        warnings = (*warnings, f"user '{user}' {outcome}, though {groups.failure}")
    return Decision(recorded, rule, lambda: rules.origin(option), user, names, warnings)


def _some(user: str, rules: Rules, groups: Groups | None) -> tuple[bool, str, str]:
    """(recorded, the option that decided, the rule) with scope "some"."""
    if user in rules.users:
        return (
            True,
            _element("users", rules.users, user),
            f"scope 'some', and user '{user}' is listed in users",
        )
    if rules.groups and groups is not None:
        for name in groups.names:
            if name in rules.groups:
                rule = f"scope 'some', and group '{name}' is listed in groups"
                return True, _element("groups", rules.groups, name), rule
        if groups.failure:
            rule = "scope 'some', and the user's groups are uncertain: recorded to be safe"
            return True, "groups", rule
    rule = f"scope 'some', and neither user '{user}' nor a group of theirs is listed"
    return False, "scope", rule


def _all(user: str, rules: Rules, groups: Groups | None) -> tuple[bool, str, str]:
    """(recorded, the option that decided, the rule) with scope "all"."""
    if user in rules.exclude_users:
        rule = f"scope 'all', but user '{user}' is listed in exclude_users"
        return False, _element("exclude_users", rules.exclude_users, user), rule
    if rules.exclude_groups and groups is not None:
        for name in groups.names:
            if name in rules.exclude_groups:
                rule = f"scope 'all', but group '{name}' is listed in exclude_groups"
                return False, _element("exclude_groups", rules.exclude_groups, name), rule
        if groups.failure:
            rule = "scope 'all', and the user's groups are uncertain: recorded to be safe"
            return True, "scope", rule
    return True, "scope", "scope 'all', and no exclusion names the user or a group of theirs"


def _element(option: str, names: Sequence[str], name: str) -> str:
    """The key of a name in a list: "users[1]"."""
    return f"{option}[{names.index(name)}]"
