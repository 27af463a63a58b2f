"""The structural check: a rendered file must contain exactly the intended directives, and none that is forbidden.

It stands between rendering and `nginx -t` and believes neither: it reads the text with a parser of its own, works out
by itself what nginx should see for each value, and compares. It shares no code with the serializer, so a fault of one
is found by the other. A mismatch is a fault of rulegen or an attack, and the file does not go live.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from rulegen.errors import RulegenError
from rulegen.languages.nginx.grammar import ENTRY_BLOCKS, Reading, inside, reading, refusal
from rulegen.languages.nginx.parser import Statement, SyntaxFault, parse
from rulegen.languages.nginx.templates import Filling
from rulegen.languages.nginx.text import Token
from rulegen.languages.nginx.tree import Directive, Entry, Interpolated, KeyKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.languages.nginx.templates import Templates, Value
    from rulegen.languages.nginx.tree import Node, Word

_SHOWN: Final = 120
_CAPTURES: Final = frozenset("123456789")
_NAME: Final = re.compile(r"[a-z0-9_]+\Z")
_REFERENCE: Final = re.compile(r"\$([1-9]|[A-Za-z_][A-Za-z0-9_]*)")
_NAMING: Final = frozenset({"map", "split_clients"})
_MAP_WORDS: Final = frozenset({"default", "hostnames", "include", "volatile"})
_MARK: Final = re.compile(r"(__value_[0-9]{5}__)")
_NOTHING: Final = "nothing"


class MismatchError(RulegenError):
    """A rendered file that does not contain the intended directives.

    Attributes:
        path: The file.
        line: Where, from 1.
        found: The content of the file, as nginx reads it; escaped and cut.
        intended: The intended content, in the same form.
    """

    def __init__(self, path: str, line: int, read: str, intended: str) -> None:
        self.path, self.line, self.read, self.intended = path, line, _shown(read), _shown(intended)
        super().__init__(
            f"{path}:{line}: the file contains {self.read} instead of {self.intended}",
            hint="this file is not served; this is a bug of rulegen or of its templates",
        )


def _shown(text: str) -> str:
    escaped = text.encode("unicode_escape").decode()
    return escaped if len(escaped) <= _SHOWN else f"{escaped[:_SHOWN]}…"


class _Fault(Exception):  # noqa: N818 (never leaves this module)
    """A mismatch whose file is not known yet."""

    def __init__(self, line: int, read: str, intended: str) -> None:
        super().__init__(line, read, intended)


def check_nodes(path: str, text: str, intended: Sequence[Node], *, context: str = "http") -> None:
    """Check that a file contains the intended directives, with the same nesting and arguments.

    Args:
        path: The file's name, for the error.
        text: Its whole text.
        intended: The directives that it was made of.
        context: Where the file is included.

    Raises:
        MismatchError: It says anything else, or something that may not be said there.
    """
    try:
        _check_block(parse(text), intended, context, 1)
    except SyntaxFault as fault:
        raise MismatchError(path, fault.line, fault.message, "a file that nginx can read") from fault
    except _Fault as fault:
        raise MismatchError(path, *fault.args) from None


def check_skeleton(path: str, text: str, templates: Templates, name: str, values: Mapping[str, Value]) -> None:
    """Check that the values of a template changed only the places where the template prints them.

    The template is rendered once more with a harmless word in place of each value. The two texts must be the same tree,
    but for exactly the intended argument, or the intended directives, where such a word stands. A template that decides
    by what a Token holds cannot be checked so, and is rejected.

    Args:
        path: The file's name, for the error.
        text: Its whole text, as rendered.
        templates: What it was rendered with.
        name: The template, of a main file.
        values: What it was rendered with.

    Raises:
        MismatchError: A value says more than itself, or something that may not be said there.
        ConfigError: The template cannot be rendered.
    """
    marks = _Marks()
    skeleton_text = templates.render(name, {key: marks.put(value) for key, value in values.items()})
    try:
        _check_filled(parse(text), parse(skeleton_text), marks, "main", 1)
    except SyntaxFault as fault:
        raise MismatchError(path, fault.line, fault.message, "a file that nginx can read") from fault
    except _Fault as fault:
        raise MismatchError(path, *fault.args) from None


class _Marks:
    """Words that stand for values."""

    def __init__(self) -> None:
        self._meant: dict[str, Word | tuple[Node, ...]] = {}

    def put(self, value: Value) -> Value:
        """Return a value in which a fixed word replaces everything that it would print."""
        if isinstance(value, Filling):
            if not value.token:
                return value
            mark = f"__value_{len(self._meant):05}__"
            self._meant[mark] = value.intended
            return Filling(Token(mark if isinstance(value.intended, str | Interpolated) else f"{mark};\n"), mark)
        if isinstance(value, Mapping):
            return {key: self.put(inner) for key, inner in value.items()}
        if isinstance(value, str | int | None):
            return value
        return tuple(self.put(inner) for inner in value)

    def directives(self, statement: Statement) -> tuple[Node, ...] | None:
        """Return the directives that a statement stands for, or None if it is one of the template's own."""
        meant = self._meant.get(statement.name)
        if meant is None or isinstance(meant, str | Interpolated) or statement.args or statement.block is not None:
            return None
        return meant

    def argument(self, statement: Statement, position: int) -> str | None:
        """Return what nginx must read for an argument of the skeleton; None if no value is allowed there."""
        how = reading(statement.name, statement.args, position)
        seen = ""
        for piece in _MARK.split(statement.args[position]):
            if not _MARK.match(piece):
                seen += piece
                continue
            meant = self._meant.get(piece)
            word = _seen(meant, how) if isinstance(meant, str | Interpolated) else None
            if word is None:
                return None
            seen += word
        return seen


def _check_filled(
    read: Sequence[Statement], skeleton: Sequence[Statement], marks: _Marks, context: str, line: int
) -> None:
    rest = iter(read)
    for own in skeleton:
        nodes = marks.directives(own)
        if nodes is not None:
            _check_block(tuple(islice(rest, len(nodes))), nodes, context, line)
            continue
        statement = next(rest, None)
        if statement is None:
            raise _Fault(line, _NOTHING, _text_of(own))
        line = statement.line
        _check_own(statement, own, marks)
        if own.block is not None:
            _check_filled(statement.block or (), own.block, marks, inside(context, own.name) or "", line)
    extra = next(rest, None)
    if extra is not None:
        raise _Fault(extra.line, _text_of(extra), _NOTHING)


def _check_own(statement: Statement, own: Statement, marks: _Marks) -> None:
    """Compare one directive of a template with what it became."""
    name, args, line, block = statement
    if _MARK.search(own.name) or name != own.name or len(args) != len(own.args):
        raise _Fault(line, _text_of(statement), _text_of(own))
    if (block is None) is not (own.block is None):
        raise _Fault(line, _text_of(statement), _text_of(own))
    for position, arg in enumerate(args):
        wanted = marks.argument(own, position)
        if arg != wanted:
            raise _Fault(line, f"{name} ... {arg}", f"{name} ... {wanted or 'another kind of value'}")


def _check_block(read: Sequence[Statement], intended: Sequence[Node], context: str, line: int) -> None:
    for statement, node in zip(read, intended, strict=False):
        line = statement.line
        if isinstance(node, Entry):
            _check_entry(statement, node, context)
        else:
            _check_directive(statement, node, context)
    if len(read) > len(intended):
        extra = read[len(intended)]
        raise _Fault(extra.line, _text_of(extra), _NOTHING)
    if len(read) < len(intended):
        missing = intended[len(read)]
        raise _Fault(line, _NOTHING, missing.key if isinstance(missing, Entry) else missing.name)


def _check_directive(statement: Statement, node: Directive, context: str) -> None:
    name, args, line, block = statement
    if name != node.name or (block is None) is not (node.block is None):
        raise _Fault(line, _text_of(statement), _text_of_node(node))
    if difference := _difference(context, name, args, node.args, has_block=block is not None):
        raise _Fault(line, *difference)
    if block is not None and node.block is not None:
        _check_block(block, node.block, inside(context, name) or "", line)


@lru_cache(maxsize=1 << 13)  # most directives of a site say the same as one before
def _difference(
    context: str, name: str, args: tuple[str, ...], intended: tuple[Word, ...], *, has_block: bool
) -> tuple[str, str] | None:
    """Return what a directive says and what it should say instead, or None if it is right."""
    if len(args) != len(intended):
        return _text(name, args, has_block=has_block), _text(name, _words(intended), has_block=has_block)
    for position, (arg, word) in enumerate(zip(args, intended, strict=True)):
        wanted = _seen(word, reading(name, intended, position))
        if name in _NAMING and not position and isinstance(word, str) and "$" in word:
            wanted = None
        if wanted is None:
            return _text(
                name, args, has_block=has_block
            ), f"{name} with a variable or a dollar sign where it takes none"
        if arg != wanted and _braced(arg, intended, position, name) != wanted:
            return f"{name} ... {arg}", f"{name} ... {wanted}"
    if reason := refusal(context, name, args, block=has_block):
        return _text(name, args, has_block=has_block), f"only what is allowed: {reason}"
    return None


def _check_entry(statement: Statement, entry: Entry, context: str) -> None:
    key, args, line, block = statement
    if context not in ENTRY_BLOCKS or len(args) != 1 or block is not None:
        raise _Fault(line, _text_of(statement), f"an entry of a block of entries: {entry.key}")
    if (entry.kind is KeyKind.FIXED or context == "map") and _meaning(key, context) != (entry.kind, entry.key):
        raise _Fault(line, _text_of(statement), f"an entry for the key {entry.key} ({entry.kind.value})")
    if entry.kind is not KeyKind.FIXED and context != "map":
        raise _Fault(line, _text_of(statement), f"an entry of {context} with a key of our own")
    wanted = _seen(entry.value, Reading.TEXT if context == "map" else Reading.LITERAL)
    seen = args[0] if context != "map" else _REFERENCE.sub(_with_braces, args[0])
    if wanted is None or wanted not in {seen, args[0]}:
        raise _Fault(line, _text_of(statement), f"{entry.key} → {wanted}")


def _braced(arg: str, args: Sequence[Word], position: int, name: str) -> str:
    """Return an argument with braces around the names of variables, where it takes variables."""
    return _REFERENCE.sub(_with_braces, arg) if reading(name, args, position) is Reading.TEXT else arg


def _with_braces(match: re.Match[str]) -> str:
    name = match[1]
    return f"${name}" if name in _CAPTURES else f"${{{name}}}"


def _meaning(key: str, context: str) -> tuple[KeyKind, str]:
    """Return what nginx takes the key of an entry for."""
    if context != "map" or key in _MAP_WORDS:
        return KeyKind.FIXED, key
    if key.startswith("~*"):
        return KeyKind.REGEX_ANY_CASE, key[2:]
    if key.startswith("~"):
        return KeyKind.REGEX, key[1:]
    return KeyKind.LITERAL, key.removeprefix("\\")


def _seen(word: Word, how: Reading) -> str | None:
    """Return the argument that nginx must see so that it means `word`; None if there is none."""
    if how is Reading.NAME and not isinstance(word, str):
        names = [part.name for part in word.parts if not isinstance(part, str)]
        return f"${names[0]}" if len(names) == len(word.parts) == 1 and _NAME.match(names[0]) else None
    if isinstance(word, str):
        if how is Reading.TEXT:
            return word.replace("$", "${dollar}")
        return None if how is Reading.WORD and "$" in word else word
    seen = ""
    for part in word.parts:
        if isinstance(part, str):
            literal = _seen(part, how)
            if literal is None:
                return None
            seen += literal
        elif how is not Reading.TEXT or not _NAME.match(part.name):
            return None
        else:
            seen += f"${part.name}" if part.name in _CAPTURES else f"${{{part.name}}}"
    return seen


def _text_of(statement: Statement) -> str:
    return _text(statement.name, statement.args, has_block=statement.block is not None)


def _text_of_node(node: Directive) -> str:
    return _text(node.name, _words(node.args), has_block=node.block is not None)


def _words(args: Sequence[Word]) -> list[str]:
    return [word if isinstance(word, str) else str(_seen(word, Reading.TEXT)) for word in args]


def _text(name: str, words: Sequence[str], *, has_block: bool) -> str:
    return " ".join((name, *words)) + (" {" if has_block else ";")
