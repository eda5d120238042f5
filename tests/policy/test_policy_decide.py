# SPDX-License-Identifier: Apache-2.0
"""The policy as a table of cases: rules, user and groups in, decision and its rule out."""

from __future__ import annotations

import pytest

from ttyscribe.policy import Groups, Rules, decide
from ttyscribe.policy.rules import needs_groups

Case = tuple[dict[str, object], str, list[str], bool, str, str]

# the case as a sentence: (rules, user, groups, recorded, the option that decided, part of the rule)
CASES: dict[str, Case] = {
    "scope none records nobody": (
        {"scope": "none"}, "alice", [], False, "scope", "scope 'none'",
    ),
    "scope none ignores users and groups": (
        {"scope": "none", "users": ["alice"], "groups": ["staff"]},
        "alice", ["staff"], False, "scope", "scope 'none'",
    ),
    "scope some records a listed user": (
        {"scope": "some", "users": ["bob", "alice"]},
        "alice", [], True, "users", "user 'alice' is listed in users",
    ),
    "scope some does not record an unlisted user": (
        {"scope": "some", "users": ["bob"]}, "alice", ["staff"], False, "scope", "neither user",
    ),
    "scope some with empty lists records nobody": (
        {"scope": "some"}, "alice", ["staff"], False, "scope", "neither user",
    ),
    "scope some records a member of a listed group": (
        {"scope": "some", "groups": ["wheel", "staff"]},
        "alice", ["alice", "staff"], True, "groups", "group 'staff' is listed in groups",
    ),
    "scope some does not record a member of other groups": (
        {"scope": "some", "groups": ["wheel"]},
        "alice", ["alice", "staff"], False, "scope", "neither user",
    ),
    "scope some names the user before the group": (
        {"scope": "some", "users": ["alice"], "groups": ["staff"]},
        "alice", ["staff"], True, "users", "listed in users",
    ),
    "scope some ignores exclude_users": (
        {"scope": "some", "users": ["alice"], "exclude_users": ["alice"]},
        "alice", [], True, "users", "listed in users",
    ),
    "scope some ignores exclude_groups": (
        {"scope": "some", "groups": ["staff"], "exclude_groups": ["staff"]},
        "alice", ["staff"], True, "groups", "listed in groups",
    ),
    "scope all records everybody": (
        {"scope": "all"}, "alice", ["staff"], True, "scope", "scope 'all'",
    ),
    "scope all records a user who is not in users": (
        {"scope": "all", "users": ["bob"], "groups": ["wheel"]},
        "alice", ["staff"], True, "scope", "no exclusion",
    ),
    "scope all leaves out an excluded user": (
        {"scope": "all", "exclude_users": ["alice"]},
        "alice", [], False, "exclude_users", "user 'alice' is listed in exclude_users",
    ),
    "scope all leaves out a member of an excluded group": (
        {"scope": "all", "exclude_groups": ["robots"]},
        "alice", ["alice", "robots"], False, "exclude_groups", "group 'robots' is listed",
    ),
    "scope all records a user whom no exclusion names": (
        {"scope": "all", "exclude_users": ["bob"], "exclude_groups": ["robots"]},
        "alice", ["staff"], True, "scope", "no exclusion",
    ),
    "an exclusion wins over users with scope all": (
        {"scope": "all", "users": ["alice"], "exclude_users": ["alice"]},
        "alice", [], False, "exclude_users", "exclude_users",
    ),
    "an exclusion by group wins over groups with scope all": (
        {"scope": "all", "groups": ["staff"], "exclude_groups": ["staff"]},
        "alice", ["staff"], False, "exclude_groups", "exclude_groups",
    ),
    "case counts in a user's name": (
        {"scope": "some", "users": ["Alice"]}, "alice", [], False, "scope", "neither user",
    ),
    "case counts in a group's name": (
        {"scope": "some", "groups": ["Staff"]}, "alice", ["staff"], False, "scope", "neither user",
    ),
    "a fully-qualified name matches as a whole": (
        {"scope": "some", "users": ["alice@example.com"]},
        "alice@example.com", [], True, "users", "alice@example.com",
    ),
    "a short name does not match a fully-qualified one": (
        {"scope": "some", "users": ["alice"]},
        "alice@example.com", [], False, "scope", "neither user",
    ),
    "a group's name may have spaces": (
        {"scope": "some", "groups": ["domain users"]},
        "alice", ["domain users"], True, "groups", "group 'domain users'",
    ),
    "a user's name is no pattern": (
        {"scope": "some", "users": ["*", "al.ce", "ali"]},
        "alice", [], False, "scope", "neither user",
    ),
    "a user's name is not a group's": (
        {"scope": "some", "groups": ["alice"]}, "alice", ["staff"], False, "scope", "neither user",
    ),
    "root is judged like everybody else": (
        {"scope": "all", "exclude_users": ["root"]},
        "root", [], False, "exclude_users", "user 'root'",
    ),
}  # fmt: skip


def rules_of(options: dict[str, object]) -> Rules:
    every: dict[str, object] = dict.fromkeys(("users", "groups", "exclude_users", "exclude_groups"))
    lists = {name: options.get(name) or [] for name in every}
    return Rules(
        scope=str(options["scope"]),
        origin=lambda option: f"conf:{option}",
        **lists,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_decision(case: Case) -> None:
    options, user, groups, recorded, option, rule = case
    decision = decide(user, rules_of(options), Groups(groups))
    assert decision.recorded is recorded
    where, _, element = decision.origin.partition("[")
    assert where == f"conf:{option}"
    if element:
        name = getattr(rules_of(options), option)[int(element.removesuffix("]"))]
        assert f"'{name}'" in decision.rule
    assert rule in decision.rule
    assert decision.user == user
    assert decision.groups == tuple(groups)
    assert decision.warnings == ()


# the case as a sentence: (rules, groups known so far, recorded, whether it is warned about)
UNCERTAIN: dict[str, tuple[dict[str, object], list[str], bool]] = {
    "scope some records when the groups are unknown": (
        {"scope": "some", "groups": ["staff"]}, [], True,
    ),
    "scope some records when only groups that are not listed are known": (
        {"scope": "some", "groups": ["staff"]}, ["alice"], True,
    ),
    "scope all records when a group that may be excluded is unknown": (
        {"scope": "all", "exclude_groups": ["robots"]}, ["alice"], True,
    ),
    "scope all leaves out a user who certainly is in an excluded group": (
        {"scope": "all", "exclude_groups": ["robots"]}, ["robots"], False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_uncertain_groups(case: tuple[dict[str, object], list[str], bool]) -> None:
    options, groups, recorded = case
    decision = decide("alice", rules_of(options), Groups(groups, "their groups are away"))
    assert decision.recorded is recorded
    [warning] = decision.warnings
    assert "alice" in warning
    assert "their groups are away" in warning


NEEDS: dict[str, tuple[dict[str, object], bool]] = {
    "scope none needs no groups": (
        {"scope": "none", "groups": ["x"], "exclude_groups": ["x"]}, False,
    ),
    "scope some without groups needs none": (
        {"scope": "some", "users": ["bob"], "exclude_groups": ["x"]}, False,
    ),
    "scope some needs no groups of a listed user": (
        {"scope": "some", "users": ["alice"], "groups": ["x"]}, False,
    ),
    "scope some needs the groups of an unlisted user": ({"scope": "some", "groups": ["x"]}, True),
    "scope all without exclusions needs no groups": ({"scope": "all", "groups": ["x"]}, False),
    "scope all needs no groups of an excluded user": (
        {"scope": "all", "exclude_users": ["alice"], "exclude_groups": ["x"]}, False,
    ),
    "scope all needs groups to exclude by": ({"scope": "all", "exclude_groups": ["x"]}, True),
}  # fmt: skip


@pytest.mark.parametrize("case", NEEDS.values(), ids=NEEDS.keys())
def test_groups_are_asked_for_only_when_they_matter(case: tuple[dict[str, object], bool]) -> None:
    options, needed = case
    assert needs_groups("alice", rules_of(options)) is needed
