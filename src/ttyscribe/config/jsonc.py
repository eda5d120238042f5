# SPDX-License-Identifier: Apache-2.0
"""JSON with // and /* */ comments: the place of every key and value, and every mistake.

Libraries that were tried for this, and why none fits:
- jsonyx 2.4: very good errors with line and column, but no places of the values, it
  stops at the first error, takes the last of duplicate keys, and its licence is the LGPL.
- tree-sitter 0.26 with tree-sitter-json 0.24: places of all nodes, but a mistake is
  only "an error somewhere in here"; it takes duplicate keys, several values in a file,
  and an empty file.
- json-five 1.1: places of all nodes; 0.8 s for 20,000 numbers, RecursionError when
  nested deeply, and takes all of JSON5, which tlog and other JSON tools don't read.
- pyjson5 2.0, json5 0.17, python-rapidjson 1.25, hjson 3.1: no places; most take
  trailing commas or NaN. jsonjsc and json-with-comments only strip comments.
So this is a parser of its own: one regular expression for the tokens, the standard
library for strings. It goes on after a mistake where the writer's intent is plain.

A comma before } or ] is a mistake, unless comments stand between them: tlog's own files
have such commas, before a last setting that is commented out.
"""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # (offset, what is wrong, the path of the key that is concerned or "")
    Mistake = tuple[int, str, str]

MOST_NESTING = 32  # our files nest 2 deep; a parser that recurses needs some bound
MOST_DIGITS = 40  # more are the same number as far as any range goes
MOST_MISTAKES = 100

TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<comment>//[^\n]*|/\*(?s:.*?)\*/)|(?P<mark>[{}\[\]:,])"
    r"|(?P<quote>\")|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.+-]))"
    r"|(?P<word>'[^'\n]*'|[^\s{}\[\]:,\"/]+)"
)
CONSTANTS: dict[str, object] = {"true": True, "false": False, "null": None}
SURROGATE = re.compile("[\ud800-\udfff]")


class Node:
    """A value and where it is: offsets in the text, the end after its last character.

    value is None for an object or list, whose contents are members (a key's offset
    and its node) or items.
    """

    __slots__ = ("end", "items", "kind", "members", "start", "value")

    def __init__(self, kind: str, start: int, end: int, value: object = None) -> None:
        self.kind = kind  # "object", "array", "string", "number", "constant"
        self.start = start
        self.end = end
        self.value = value
        self.members: dict[str, tuple[int, Node]] = {}
        self.items: list[Node] = []

    def add(self, node: Node, key: str, key_at: int) -> None:
        """Take a value in; of a key that is here twice the first one stays."""
        if self.kind == "array":
            self.items.append(node)
        else:
            self.members.setdefault(key, (key_at, node))

    def plain(self) -> object:
        """The value as plain dicts, lists and scalars."""
        if self.kind == "object":
            return {key: node.plain() for key, (_, node) in self.members.items()}
        if self.kind == "array":
            return [node.plain() for node in self.items]
        return self.value


class Parsed:
    """What was parsed, as far as it could be, and the mistakes in order of their place.

    more are the offsets of the mistakes beyond MOST_MISTAKES. root is None where nothing
    can be said of the values.
    """

    def __init__(self, root: Node | None, mistakes: list[Mistake], more: list[int]) -> None:
        self.root = root
        self.mistakes = mistakes
        self.more = more


def parse(text: str) -> Parsed:
    """Parse a configuration; nothing is raised, every mistake is in the result."""
    parser = Parser(text)
    try:
        parser.document()
    except Fatal:
        pass
    return Parsed(parser.root, sorted(parser.mistakes), parser.more)


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column, in characters from 1, of an offset."""
    before = text.rfind("\n", 0, offset)
    return text.count("\n", 0, offset) + 1, offset - before


class Fatal(Exception):
    """Nothing sensible can be read after this; the mistake is noted already."""


class Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.mistakes: list[Mistake] = []
        self.more: list[int] = []
        self.root: Node | None = None
        # Offsets of the brackets that are open, and the path to the value under the cursor:
        # ".key" and "[index]".
        self.open: list[int] = []
        self.path: list[str] = []
        # How many comments were passed.
        self.comments = 0
        self.tokens = self.scan()
        # The token under the cursor: kind ("" at the end), offset, text, value of a string.
        self.kind = ""
        self.at = 0
        self.lexeme = ""
        self.string = ""
        self.last_end = 0

    def note(self, offset: int, what: str, key: str = "") -> None:
        if len(self.mistakes) < MOST_MISTAKES:
            self.mistakes.append((offset, what, key))
        else:
            self.more.append(offset)

    def fail(self, offset: int, what: str) -> Fatal:
        self.note(offset, what)
        return Fatal()

    def scan(self) -> Iterator[tuple[str, int, int, str]]:
        """The tokens that count: kind, start, end, and for a string its value."""
        text, at, end = self.text, 0, len(self.text)
        match = TOKEN.match
        while at < end:
            found = match(text, at)
            if found is None:
                raise self.fail(at, self.bad_character(at))
            kind, after = str(found.lastgroup), found.end()
            if kind == "quote":
                value, after = self.read_string(at)
                yield "string", at, after, value
            elif kind == "comment":
                self.comments += 1
            elif kind != "space":
                yield kind, at, after, ""
            at = after

    def bad_character(self, at: int) -> str:
        c = self.text[at]
        if c == "/":
            if self.text.startswith("/*", at):
                return "this comment is never closed; */ is missing"
            return "a single / means nothing; a comment begins with // or /*"
        return f"the character U+{ord(c):04X} has no place here"

    def read_string(self, at: int) -> tuple[str, int]:
        try:
            value, after = scanstring(self.text, at + 1, True)
        except ValueError as error:
            offset: int = getattr(error, "pos", at)
            what = str(getattr(error, "msg", error))
            if what.startswith("Unterminated"):
                raise self.fail(at, 'this text is never closed; " is missing') from None
            if what.startswith("Invalid control"):
                c = self.text[offset]
                if c in "\r\n":
                    raise self.fail(
                        at, 'this text is not closed on its line; " is missing (or write \\n)'
                    ) from None
                raise self.fail(
                    offset, f"a control character in a text; write it as \\u{ord(c):04x}"
                ) from None
            raise self.fail(
                offset, 'not an escape of JSON; a backslash is written \\\\, a quote \\"'
            ) from None
        if SURROGATE.search(value):
            self.note(at, "half a surrogate pair is no character; \\ud8.. and \\udc.. go together")
        return value, after

    def next(self) -> None:
        """Move to the next token."""
        self.last_end = self.at + len(self.lexeme)
        try:
            self.kind, self.at, after, self.string = next(self.tokens)
        except StopIteration:
            self.kind, self.at, self.lexeme = "", len(self.text), ""
            return
        self.lexeme = self.text[self.at : after]

    def document(self) -> None:
        self.next()
        if self.kind == "":
            raise self.fail(0, "there is no configuration here; an empty one is {}")
        if self.lexeme != "{":
            if self.lexeme.startswith("\ufeff"):
                raise self.fail(0, "there is a byte order mark; save the file as UTF-8 without it")
            if self.lexeme.startswith("#"):
                raise self.fail(self.at, "a comment begins with //")
            colon = self.kind in ("string", "word") and ":" in self.text[self.at :]
            what = "{ is missing before this" if colon else "this must be an object {...}"
            raise self.fail(self.at, f"{what}; a configuration is one object")
        self.root = Node("object", self.at, self.at)
        self.fill_object(self.root)
        if self.kind != "":
            more = (
                "this } closes nothing" if self.lexeme == "}" else "nothing may follow the last }"
            )
            raise self.fail(self.at, more)

    def value(self, parent: Node, key: str = "", key_at: int = 0) -> None:
        """Add the value under the cursor, which moves behind it, to its parent.

        It is added before anything after it can fail, so that what is wrong in it
        is reported beside a mistake that ends the parsing.
        """
        start, kind, lexeme = self.at, self.kind, self.lexeme
        if lexeme in ("{", "["):
            node = Node("object" if lexeme == "{" else "array", start, start)
            parent.add(node, key, key_at)
            if lexeme == "{":
                self.fill_object(node)
            else:
                self.fill_array(node)
            return
        end = start + len(lexeme)
        if kind == "string":
            node = Node("string", start, end, self.string)
        elif kind == "number":
            node = Node("number", start, end, number(lexeme))
        elif kind == "word":
            node = Node("constant", start, end, self.word(start, lexeme))
        elif kind == "":
            raise self.unclosed()
        else:
            raise self.fail(start, f"a value is missing before {lexeme}")
        parent.add(node, key, key_at)
        self.next()

    def word(self, start: int, token: str) -> object:
        if token in CONSTANTS:
            return CONSTANTS[token]
        if token.lower() in CONSTANTS:
            self.note(start, f"write {token.lower()}, in small letters")
            return CONSTANTS[token.lower()]
        shown = shorten(token)
        if token[0] in "+-.0123456789":
            self.note(start, f"{shown} is not a number of JSON")
        elif token[0] == "'":
            self.note(start, 'texts are in double quotes "')
        elif token[0] == "#":
            raise self.fail(start, "a comment begins with //")
        else:
            self.note(start, f'{shown} means nothing; a text is in quotes: "{shown}"')
        return None

    def unclosed(self) -> Fatal:
        offset = self.open[-1]
        bracket = self.text[offset]
        close = "}" if bracket == "{" else "]"
        return self.fail(offset, f"this {bracket} is never closed; {close} is missing")

    def enter(self) -> None:
        if len(self.open) >= MOST_NESTING:
            # What is nested so deeply is no setting at any level.
            self.root = None
            raise self.fail(self.at, f"nested deeper than {MOST_NESTING} levels")
        self.open.append(self.at)
        self.next()

    def leave(self, node: Node) -> None:
        node.end = self.at + 1
        self.open.pop()
        self.next()

    def comma(self, close: str) -> None:
        """Take the comma between two things, or note that it is missing or too many."""
        if self.lexeme == close:
            return
        if self.kind == "":
            raise self.unclosed()
        if self.lexeme != ",":
            if self.kind == "mark" and self.lexeme not in "{[":
                raise self.fail(self.at, f"{self.lexeme} has no place here; , or {close} belongs")
            self.note(self.last_end, "a comma is missing after this")
            return
        comma, comments = self.at, self.comments
        self.next()
        if self.lexeme == close:
            if self.comments == comments:
                self.note(comma, f"a comma before {close}; take it away")
        elif self.lexeme == ",":
            raise self.fail(self.at, "two commas follow each other")

    def fill_object(self, node: Node) -> None:
        self.enter()
        while self.lexeme != "}":
            if self.kind == "":
                raise self.unclosed()
            at, key = self.at, self.string
            if self.kind == "word":
                key = self.lexeme.strip("'")
                self.note(at, f'a key is in quotes: "{shorten(key)}"')
            elif self.kind != "string":
                raise self.fail(at, f"a key in quotes belongs here, not {shorten(self.lexeme)}")
            self.next()
            if self.lexeme == ":":
                self.next()
            elif self.kind == "":
                raise self.unclosed()
            elif self.kind == "mark" and self.lexeme not in "{[":
                raise self.fail(self.at, f'after the key "{shorten(key)}" a : and a value belong')
            else:
                self.note(self.last_end, f'a : is missing after the key "{shorten(key)}"')
            self.path.append(f".{shorten(key)}")
            if key in node.members:
                self.note_again(at, key, node.members[key][0])
            self.value(node, key, at)
            self.path.pop()
            self.comma("}")
        self.leave(node)

    def fill_array(self, node: Node) -> None:
        self.enter()
        while self.lexeme != "]":
            if self.kind == "":
                raise self.unclosed()
            self.path.append(f"[{len(node.items)}]")
            self.value(node)
            self.path.pop()
            self.comma("]")
        self.leave(node)

    def note_again(self, offset: int, key: str, first: int) -> None:
        """Note a key that its object has already; to find its line takes time."""
        line = 0
        if len(self.mistakes) < MOST_MISTAKES:
            line, _ = place(self.text, first)
        what = f'the key "{shorten(key)}" is here a second time, first in line {line}'
        self.note(offset, what, "".join(self.path).removeprefix("."))


def number(token: str) -> object:
    """An int or float; one with absurdly many digits is cut to a still absurd size."""
    if token.lstrip("-").isdigit():
        return int(token[:MOST_DIGITS])
    return float(token)


def shorten(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
