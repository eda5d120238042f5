# SPDX-License-Identifier: Apache-2.0
"""ttyscribe policy: tell whether a user is recorded, and why."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback

from ttyscribe import policy
from ttyscribe.config import load
from ttyscribe.errors import TtyscribeError, printable

RECORDED = 0
NOT_RECORDED = 1
CANT_TELL = 2

EPILOG = """\
The answer is what a login of USER would get now: the same code decides it, from
the same files, asking the same name service (NSS: files, LDAP, IdM) for groups.
Where the rules come from SSSD ("source": "sssd"), only root may read them.

Examples:
  ttyscribe policy alice
      is alice recorded, by which rule, and where does it stand?
  ttyscribe policy alice --config ./draft.conf
      and if this file were /etc/ttyscribe/rec-session.conf?
  ttyscribe policy alice --json | jq -r .rule
      the rule alone, for a script
  for user in $(getent passwd | cut -d: -f1); do
      ttyscribe policy "$user" >/dev/null; [ $? = 1 ] && echo "$user"; done
      who of this machine's users is not recorded?

JSON: an object with user; recorded (true, false, or null where it can't be told);
rule, origin; groups (names, or null where no rule asks for them); warnings; and
error, null unless it can't be told.

Exit status: 0 recorded, 1 not recorded, 2 can't tell (an unknown user, rules that
can't be read, a wrong configuration or command line).
"""


def main(argv: list[str]) -> int:
    """Answer for one user; the exit status is the answer."""
    options = parser().parse_args(argv)
    # Names are UTF-8, as the configuration is, whatever the locale says of the arguments.
    user = os.fsencode(options.user).decode("utf-8", "surrogateescape")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the locale can't write must not cost the answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        warnings, decision = ask(user, options.config)
        warnings += decision.warnings
        if options.json:
            answer = to_json(decision.user, None, warnings, decision)
        else:
            answer = "\n".join(printable(line) for line in to_text(decision, warnings))
    except TtyscribeError as error:
        error.status = CANT_TELL
        if not options.json:
            raise
        print(to_json(user, str(error), [], None))
        return CANT_TELL
    except Exception:
        # A fault of ours, whose usual status 1 would say "not recorded" to a script.
        traceback.print_exc()
        return CANT_TELL
    print(answer)
    return RECORDED if decision.recorded else NOT_RECORDED


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ttyscribe policy",
        description="Tell whether a user's logins are recorded, by which rule, and where that"
        " rule was set.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("user", metavar="USER", help="the user's name, as the name service has it")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="take the rules from this file, and not from those that the user's login shell"
        " reads, /etc/ttyscribe/rec-session.conf and its drop-ins",
    )
    parser.add_argument("--json", action="store_true", help="answer with one JSON object")
    return parser


def ask(name: str, config: str | None) -> tuple[list[str], policy.Decision]:
    """The configuration's warnings and the decision. Raises TtyscribeError if it can't be told."""
    if config is not None:
        # A draft may lie in the admin's own folder: it is not judged as a login's would be.
        loaded = load("rec-session", files=[config])
    else:
        # The name under which the login shell is started says which files it reads.
        uid, shell = policy.login_of(name)
        loaded = load("rec-session", user=uid, name=shell)
    return list(loaded.warnings), policy.for_user(loaded.values, loaded.origin, name)


def to_text(decision: policy.Decision, warnings: list[str]) -> list[str]:
    """The answer in lines for a person."""
    if decision.groups is None:
        groups = "not looked up, as no rule asks for them"
    else:
        groups = ", ".join(decision.groups) or "none"
    return [
        f"{decision.user}: {'recorded' if decision.recorded else 'not recorded'}",
        f"  rule:    {decision.rule}",
        f"  set at:  {decision.origin}",
        f"  groups:  {groups}",
        *(f"  warning: {warning}" for warning in warnings),
    ]


def to_json(
    user: str, error: str | None, warnings: list[str], decision: policy.Decision | None
) -> str:
    """The answer as a JSON object on one line; members that can't be told are null."""
    answer = {
        "user": user,
        "recorded": decision.recorded if decision else None,
        "rule": decision.rule if decision else None,
        "origin": decision.origin if decision else None,
        "groups": list(decision.groups) if decision and decision.groups is not None else None,
        "warnings": warnings,
        "error": error,
    }
    return json.dumps(answer)
