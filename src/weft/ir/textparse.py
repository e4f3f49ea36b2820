"""Reads the text form: a tokenizer of one regular expression, and one method a kind of node."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

from weft.errors import FormatError
from weft.ir import nodes as n
from weft.ir.constant import NamedConstant
from weft.ir.types import DTYPES, TensorType

_TOKENS = re.compile(
    r"""(?P<space>[ \t]+|\#[^\n]*)
    |(?P<newline>\n)
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<digest>sha256:[0-9a-f]{64})
    |(?P<ref>%\d+(?:\.\d+)?)
    |(?P<number>-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|inf(?![\w.])))
    |(?P<word>[A-Za-z_][\w.]*)
    |(?P<mark><-|[=()\[\]{},:.])""",
    re.VERBOSE | re.ASCII,
)
_WORDS: dict[str, Any] = {"none": None, "true": True, "false": False, "inf": math.inf, "nan": math.nan}
_WHOLE = re.compile(r"-?\d{1,19}")
MAX_DEPTH = 48


class Token(NamedTuple):
    kind: str
    text: str
    at: int


class Parser:
    """Parses one text; `constants` gives the data of constants by digest, where it is known."""

    def __init__(self, text: str, constants: Mapping[str, n.ConstantData]) -> None:
        self.text = text
        self.constants = constants
        self.depth = 0
        self.tokens = self._tokenize()
        self.next = 0

    def experiment(self) -> n.Experiment:
        self._skip_newlines()
        for word in ("weft", "experiment", ",", "schema"):
            self.expect(word)
        if self.whole() != n.SCHEMA:
            self.fail(f"schema {n.SCHEMA}, the only one this version reads")
        return n.Experiment(tuple(self._nodes("")))

    def _nodes(self, end: str) -> list[n.Node]:
        """Nodes, one a line, until the mark `end` (or the end of the text)."""
        found: list[n.Node] = []
        while True:
            if self.peek().kind not in ("newline", "end") and found:
                self.fail("the end of the line")
            self._skip_newlines()
            if self.peek().kind == "end" or (end and self.peek().text == end):
                return found
            if self.peek().kind == "ref":
                if self.take("ref").text != f"%{len(found)}":
                    self.next -= 1
                    self.fail(f"%{len(found)}, the number of this node")
                self.expect("=")
            word = self.take("word").text.removesuffix(".nograd")
            self.nograd = self.tokens[self.next - 1].text.endswith(".nograd")
            if word not in _KINDS or (self.nograd and word not in ("op", "update")):
                self.next -= 1
                self.fail(f"a kind of node: {', '.join(_KINDS)}")
            found.append(_KINDS[word](self))

    # -- kinds of node ----------------------------------------------------------------------------------------------

    def run(self) -> n.Run:
        kind = self.name()
        inputs = self._pairs(self.ref)
        options = self._pairs(self.arg) if self.accept("with") else ()
        return n.Run(kind, inputs, options)

    def read(self) -> n.Read:
        self.expect("run")
        self.expect("=")
        run, step = self.ref(), None
        if self.peek().text == "step" and self.peek(1).text == "=":
            self.next += 2
            step = n.EACH if self.accept("each") else self.whole()
        return n.Read(run.node, self.site(), step)

    def write(self) -> n.Write:
        prev, view = self.ref(), self.view()
        self.expect("<-")
        return n.Write(prev, view, self.ref())

    def update(self) -> n.Update:
        nograd, base = self.nograd, self.ref()
        layout = self.listed(self.whole) if self.accept("layout") else ()
        view = self.view()
        self.expect("<-")
        return n.Update(base, view, self.ref(), layout, nograd)

    def op(self) -> n.Op:
        nograd, name = self.nograd, self.name()
        args: list[Any] = []
        while self.peek().kind not in ("newline", "end"):
            if args:
                self.expect(",")
            args.append(self.arg())
        return n.Op(name, tuple(args), nograd)

    def const(self) -> n.Const:
        dtype = self.take("word").text
        if dtype not in DTYPES:
            self.next -= 1
            self.fail(f"a dtype: {', '.join(DTYPES)}")
        type_ = TensorType(dtype, self.listed(self.whole))
        digest = self.take("digest").text.removeprefix("sha256:")
        return n.Const(self.constants.get(digest) or NamedConstant(type_, digest))

    def param(self) -> n.Param:
        return n.Param(self.quoted())

    def apply(self) -> n.Apply:
        return n.Apply(self.quoted(), self.ref())

    def grad(self) -> n.Grad:
        of = self.ref()
        self.expect("wrt")
        return n.Grad(of, self.listed(self.ref))

    def slot(self) -> n.Slot:
        return n.Slot(self.name(), self.whole())

    def loop(self) -> n.Loop:
        steps, start = self._field("steps", self.whole), self._field("start", self.whole)
        carried, state, tables, order = (
            self._field(name, lambda: self.listed(self.ref)) for name in ("carried", "state", "tables", "order")
        )
        self.expect("with")
        options = self._pairs(self.arg)
        body, results = self._inside(), self._field("results", lambda: self.listed(self.ref))
        self.expect("after")
        after, projected = self._inside(), self._field("projected", lambda: self.listed(self.ref))
        return n.Loop(body, results, after, projected, carried, state, tables, order, start, steps, options)

    def _field(self, name: str, value: Callable[[], Any]) -> Any:
        self.expect(name)
        self.expect("=")
        return value()

    def _inside(self) -> tuple[n.Node, ...]:
        self.expect("{")
        body = self._deeper(lambda: self._nodes("}"))
        self.expect("}")
        return tuple(body)

    def save(self) -> n.Save:
        return n.Save(self.quoted(), self.ref())

    def keep(self) -> n.Keep:
        return n.Keep(self.quoted(), self.ref())

    # -- their parts ------------------------------------------------------------------------------------------------

    def site(self) -> n.Site:
        name, layer, path, call, item = self.name(), None, "", 0, ""
        if self.peek().text == "[" and self.peek(1).kind == "number":
            self.expect("[")
            layer = self.whole()
            self.expect("]")
        if self.accept("("):
            path = self.quoted()
            self.expect(")")
        if self.accept("."):
            self.expect("call")
            self.expect("(")
            call = self.whole()
            self.expect(")")
        if self.accept("["):
            item = self.quoted()
            self.expect("]")
        return n.Site(name, layer, path, call, item)

    def view(self) -> tuple[n.ViewStep, ...]:
        return self.listed(self._view_step)

    def _view_step(self) -> n.ViewStep:
        return n.ViewStep(self.name(), self.listed(self.arg, "(", ")"))

    def arg(self) -> Any:
        token = self.peek()
        if token.text == "[":
            return self._deeper(lambda: self.listed(self.arg))
        if token.kind == "ref":
            return self.ref()
        if token.kind == "string":
            return self.quoted()
        if token.kind == "number":
            if token.text.removeprefix("-").isdecimal():
                return self.whole()
            self.next += 1
            return float(token.text)
        if token.kind == "word" and token.text in _WORDS:
            self.next += 1
            return _WORDS[token.text]
        if token.kind == "word" and token.text in DTYPES:
            self.next += 1
            return n.Dtype(token.text)
        self.fail("an argument: an operand, number, true, false, none, quoted text, dtype or [list]")

    def _deeper(self, parse: Callable[[], Any]) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} levels of nesting")
        found = parse()
        self.depth -= 1
        return found

    def _pairs(self, value: Callable[[], Any]) -> tuple[Any, ...]:
        def pair() -> tuple[str, Any]:
            name = self.name()
            self.expect("=")
            return name, value()

        return self.listed(pair, "(", ")")

    def listed(self, item: Callable[[], Any], opening: str = "[", closing: str = "]") -> tuple[Any, ...]:
        self.expect(opening)
        found: list[Any] = []
        while not self.accept(closing):
            if found:
                self.expect(",")
            found.append(item())
        return tuple(found)

    def ref(self) -> n.Ref:
        node, _, out = self.take("ref").text[1:].partition(".")
        return n.Ref(self._int(node), self._int(out or "0"))

    def name(self) -> str:
        return self.quoted() if self.peek().kind == "string" else self.take("word").text

    def quoted(self) -> str:
        try:
            return json.loads(self.take("string").text)
        except ValueError as error:
            self.next -= 1
            self.fail(f"text quoted as in JSON ({error})")

    def whole(self) -> int:
        return self._int(self.take("number").text)

    def _int(self, text: str) -> int:
        if not _WHOLE.fullmatch(text):
            self.next -= 1
            self.fail("a whole number of 64 bits")
        return int(text)

    # -- tokens -----------------------------------------------------------------------------------------------------

    def _tokenize(self) -> list[Token]:
        found: list[Token] = []
        at = 0
        while at < len(self.text):
            match = _TOKENS.match(self.text, at)
            if match is None:
                self.tokens, self.next = [Token("mark", self.text[at], at)], 0
                self.fail("a word, number, operand, quoted text or mark")
            if match.lastgroup != "space":
                found.append(Token(str(match.lastgroup), match.group(), at))
            at = match.end()
        return [*found, Token("end", "the end", len(self.text))]

    def _skip_newlines(self) -> None:
        while self.peek().kind == "newline":
            self.next += 1

    def peek(self, ahead: int = 0) -> Token:
        return self.tokens[min(self.next + ahead, len(self.tokens) - 1)]

    def take(self, kind: str) -> Token:
        token = self.peek()
        if token.kind != kind:
            self.fail({"ref": "an operand such as %3", "string": "quoted text"}.get(kind, f"a {kind}"))
        self.next += 1
        return token

    def accept(self, text: str) -> bool:
        found = self.peek().text == text and self.peek().kind in ("mark", "word")
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(repr(text))

    def fail(self, expected: str) -> NoReturn:
        """FormatError at the next token."""
        token = self.peek()
        line = self.text.count("\n", 0, token.at) + 1
        column = token.at - (self.text.rfind("\n", 0, token.at) + 1) + 1
        shown = "the end of the line" if token.kind == "newline" else repr(token.text[:40])
        raise FormatError(f"line {line}, column {column}: expected {expected}, got {shown}", line=line, column=column)


_KINDS: dict[str, Callable[[Parser], n.Node]] = {
    "run": Parser.run, "read": Parser.read, "write": Parser.write, "op": Parser.op, "update": Parser.update,
    "const": Parser.const, "param": Parser.param, "apply": Parser.apply, "grad": Parser.grad, "loop": Parser.loop,
    "slot": Parser.slot, "save": Parser.save, "keep": Parser.keep,
}  # fmt: skip
