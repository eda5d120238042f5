# SPDX-License-Identifier: Apache-2.0
"""The login path's validator accepts what the full parser and the models accept, and no more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ttyscribe
from ttyscribe.config import describe, fast
from ttyscribe.config.check import examine

PROGRAMS = ("rec", "rec-session", "play")
SCHEMAS = {program: fast.load_schema(program) for program in PROGRAMS}
WORDS = sorted(
    {
        key
        for program in PROGRAMS
        for path, _ in describe.settings(program)
        for key in path.split(".")
    }
)
CHOICES = sorted(
    {
        choice
        for program in PROGRAMS
        for _, part in describe.settings(program)
        for choice in part.get("enum", [])  # type: ignore[attr-defined]
    }
)

# Pieces of text, mostly ones that mean something here.
SPACES = st.sampled_from(["", " ", "\n", "\t", "//\n", '// "{,}\n', "/**/", '/* "x */', "\f", "/"])
NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "31",
        "32",
        "10",
        "1.0",
        "1e1",
        "1e999",
        "-0",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "-Infinity",
        "9223372036854775807",
        "9223372036854775808",
        "1" * 50,
        "1" * 5000,
        "1000000.5",
    ]
)
STRINGS = st.one_of(
    st.sampled_from([json.dumps(choice) for choice in CHOICES]),
    st.sampled_from(['"/bin/sh"', '""', '"a,b"', '", ,"', '"\\ud800"', '"\\u0000"', '"\\q"'])
    | st.sampled_from(['"a\nb"', '"\\\\"', '"\\""', '"//"', '"/*"', "'a'", '"\\u00a0, x"', '"é"']),
    st.text(max_size=5).map(json.dumps),
    st.text(max_size=5).map(lambda text: '"' + text + '"'),
)
SCALARS = st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null", "True", "x"]))
COMMAS = st.sampled_from([",", ",", ",", ",", "", ",,"])
ENDS = st.sampled_from(["", "", "", ",", ",/**/", ",//\n"])
KEYS = st.one_of(
    st.sampled_from([json.dumps(word) for word in WORDS]), STRINGS, st.sampled_from(["key"])
)


@st.composite
def brackets(draw: st.DrawFn, inner: st.SearchStrategy[str], kind: str) -> str:
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        item = draw(SPACES) + draw(inner)
        if kind == "{}":
            item = draw(SPACES) + draw(KEYS) + draw(SPACES) + ":" + item
        parts.append(item + draw(SPACES))
    comma = draw(COMMAS)
    return kind[0] + comma.join(parts) + draw(ENDS) + draw(SPACES) + kind[1]


VALUES: st.SearchStrategy[str] = st.recursive(
    SCALARS, lambda inner: brackets(inner, "{}") | brackets(inner, "[]"), max_leaves=6
)


@st.composite
def sensible(draw: st.DrawFn, program: str) -> str:
    """A configuration that is nearly always valid."""
    data: dict[str, object] = {}
    for path, part in draw(
        st.lists(st.sampled_from(describe.settings(program)), max_size=4, unique_by=lambda s: s[0])
    ):
        inner = data
        *above, key = path.split(".")
        for name in above:
            inner = inner.setdefault(name, {})  # type: ignore[assignment]
        inner[key] = draw(
            st.sampled_from([part["default"], 32, 1, True, "/x", "a, b", ["a"], None, 0.5])
        )
    return json.dumps(data, indent=draw(st.sampled_from([None, 1])))


def agree(program: str, text: str) -> None:
    quick = fast.accept(text, SCHEMAS[program])
    values, problems = examine(program, text)
    if problems:
        assert quick is None, (text, problems[0].line_for("text"))
    else:
        assert quick == values, text
        # In JSON 1, 1.0 and true differ, which == doesn't see.
        assert json.dumps(quick, sort_keys=True) == json.dumps(values, sort_keys=True)


@settings(max_examples=400, deadline=None)
@given(program=st.sampled_from(PROGRAMS), text=brackets(VALUES, "{}"))
@example("rec", '{"latency":1,/**/}')
@example("rec", "{,/**/}")
@example("rec", '{"log":{"input":true,//\n},/**/}')
@example("rec", "{/**/,/**/}")
@example("rec", '{"latency":/**/,/**/}')
@example("play", '{"journal":{"match":["a"/**/,/**/]}}')
@example("play", '{"journal":{"match":[/**/,/**/]}}')
@example("play", '{"journal":{"match":["a",/**/,/**/]}}')
@example("play", '{"speed":1e999}')
@example("play", '{"speed":2}')
@example("play", '{"speed":true}')
@example("rec", "\ufeff{}")
@example("rec", "{}//")
@example("rec", "{}/*")
def test_both_agree_on_text_that_is_nearly_a_configuration(program: str, text: str) -> None:
    agree(program, text)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), program=st.sampled_from(PROGRAMS))
def test_both_agree_on_sensible_configurations(data: st.DataObject, program: str) -> None:
    agree(program, data.draw(sensible(program)))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), program=st.sampled_from(PROGRAMS))
def test_both_agree_on_a_configuration_with_a_slip_of_the_pen(
    data: st.DataObject, program: str
) -> None:
    text = data.draw(sensible(program))
    at = data.draw(st.integers(0, len(text)))
    slip = data.draw(
        st.sampled_from(["", ",", '"', "{", "}", "/", "//", "/*", "1", " ", "\0", "\\"])
    )
    agree(program, text[:at] + slip + text[at + data.draw(st.integers(0, 2)) :])


@settings(max_examples=200, deadline=None)
@given(text=st.text() | st.text(alphabet='{}[]:,"/*\\ \n1ae'), program=st.sampled_from(PROGRAMS))
def test_both_agree_on_anything(text: str, program: str) -> None:
    agree(program, text)


# One of each mistake that the scanner finds.
WRONG = (
    "", "{", "[", '{"latency": 5,}', '{"latency": 5', '{"latency"', '{"latency":', '{"latency" 5}',
    '{"a":1 "b":2}', "{latency: 5}", "{,}", '{"a": "x\ty"}', '{"a": "\\x"}', '{"a": "\\u12"}',
    '{"a": "open', "[1 2]", "[1,]", "[1,", '{"a": -}', '{"a": tru}', '{"a": 01}', '{"a": NaN}',
    '{"latency": 5}}', '{"latency": 5, "latency": 6}', "[" * 100_000, '{"a": 1e999}', "{} /*", "/",
)  # fmt: skip
# What a login does with them, in an interpreter that has not imported json, as a login's has not.
ACCEPT = """\
import ast, sys
sys.path.insert(0, sys.argv[1])
from ttyscribe.config import fast
schema = fast.load_schema("rec-session")
for text in ast.literal_eval(sys.stdin.read()):
    {before}
    print(fast.accept(text, schema), "json.decoder" in sys.modules)
"""


@pytest.mark.parametrize("before", ["pass", "import json"])
def test_a_mistake_is_refused_whether_or_not_json_is_imported(before: str) -> None:
    source = str(Path(ttyscribe.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ACCEPT.format(before=before), source],
        input=repr(WRONG), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert set(done.stdout.splitlines()) == {f"None {before != 'pass'}"}
    assert done.stdout.count("\n") == len(WRONG)


@given(value=st.text() | st.sampled_from(["", "/", "/a\0", "\n", "/\n", "a"]))
def test_the_patterns_without_re_are_those_of_the_schemas(value: str) -> None:
    import re

    used = {
        pattern
        for program in PROGRAMS
        for _, part in describe.settings(program)
        for pattern in re.findall(r"'pattern': '(.*?)'", repr(part))
    }
    assert {pattern.replace("\\\\", "\\") for pattern in used} == set(fast.PATTERNS)
    for pattern, function in fast.PATTERNS.items():
        assert function(value) == (re.fullmatch(pattern[1:-1], value, re.DOTALL) is not None)
