"""The text of a configuration: the one place where a value becomes syntax.

Inside double quotes nginx's lexer knows two special characters, the backslash and the quote; a dollar sign starts a
variable where the directive takes variables, and no escape helps there, so it is written as `${dollar}`, which the
skeleton defines. What no escape can make harmless is rejected: control characters, text that is no UTF-8, and tokens
longer than the lexer's buffer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rulegen.errors import RulegenError
from rulegen.languages.nginx.tree import Directive, Entry, Interpolated, KeyKind, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.languages.nginx.tree import Node, Word

MAX_TOKEN: Final = 4000
"""Bytes of one token; the lexer's buffer has 4096."""

LITERAL_DIRECTIVES: Final = frozenset(
    {
        "allow",
        "auth_request",
        "deny",
        "fastcgi_hide_header",
        "fastcgi_index",
        "fastcgi_pass_header",
        "fastcgi_split_path_info",
        "geo",
        "grpc_hide_header",
        "gzip_disable",
        "grpc_pass_header",
        "include",
        "limit_except",
        "listen",
        "location",
        "mirror",
        "proxy_hide_header",
        "proxy_pass_header",
        "resolver",
        "server",
        "server_name",
        "set_real_ip_from",
        "upstream",
    }
)
"""Directives in whose arguments a dollar sign is just a character (or cannot be, as in a name of ours)."""

LITERAL_FIRST: Final = frozenset(
    {
        "add_header",
        "auth_request_set",
        "fastcgi_param",
        "grpc_set_header",
        "proxy_set_header",
        "rewrite",
        "set",
    }
)
"""Directives whose first argument is a name or a regular expression, followed by texts with variables."""

NAMING: Final = frozenset({"map", "split_clients"})
"""Directives that name a variable (`"$x"`, a plain text) in their second argument, after a text with variables."""

_BARE: Final = re.compile(r"[A-Za-z0-9_./:=*@^~+,%|()\[\]?-]+\Z")
_VARIABLE: Final = re.compile(r"\$[a-z_][a-z0-9_]*\Z")
_WORD: Final = re.compile(r"[A-Za-z0-9_]")
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f]")
_SPECIAL: Final = re.compile(r'[\\"]')
_MAGIC_KEYS: Final = frozenset({"default", "hostnames", "include", "volatile"})
_ONE_LINE: Final = 110


class UnquotableError(RulegenError):
    """A value that cannot be written for nginx without changing its meaning, or that of the whole file."""


class Token(str):
    """Text of a configuration that the serializer made: the only thing that a template prints."""

    __slots__ = ()


def quote(word: Word, *, takes_variables: bool = True) -> Token:
    """Return one argument as it stands in a file.

    Args:
        word: Any text, or a text with variables.
        takes_variables: Whether the directive would read a dollar sign as a variable.

    Raises:
        UnquotableError: No text of a configuration means this value.
    """
    if isinstance(word, str):
        if (_BARE.match(word) or (not takes_variables and _VARIABLE.match(word))) and len(word) < MAX_TOKEN:
            return Token(word)
        parts: tuple[str | Variable, ...] = (word,)
    else:
        parts = word.parts
        plain = "".join([part if isinstance(part, str) else f"${part.name}" for part in parts])
        if len(plain) < MAX_TOKEN and _is_plain(parts):
            return Token(plain)
    written = "".join(
        [
            _reference(part) if isinstance(part, Variable) else _escaped(part, takes_variables=takes_variables)
            for part in parts
        ]
    )
    if len(written.encode()) > MAX_TOKEN:
        raise UnquotableError(f"a value of {len(written)} characters is longer than nginx reads ({MAX_TOKEN} bytes)")
    return Token(f'"{written}"')


def _is_plain(parts: tuple[str | Variable, ...]) -> bool:
    """Whether nginx reads a value rightly without quotes and braces: every variable ends where its name does."""
    for number, part in enumerate(parts):
        if isinstance(part, str):
            if not _BARE.match(part):
                return False
            if number and isinstance(parts[number - 1], Variable) and _WORD.match(part):
                return False
    return bool(parts)


def _reference(part: Variable) -> str:
    # nginx knows captures by one bare digit only: it takes ${1} for a variable of that name.
    return f"${part.name}" if part.name.isdigit() else f"${{{part.name}}}"


def _escaped(text: str, *, takes_variables: bool) -> str:
    if _FORBIDDEN.search(text):
        raise UnquotableError("a control character cannot be part of nginx's configuration")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnquotableError("invalid UTF-8 cannot be part of nginx's configuration") from None
    escaped = _SPECIAL.sub(r"\\\g<0>", text)
    return escaped.replace("$", "${dollar}") if takes_variables else escaped


def format_nodes(nodes: Iterable[Node], indent: str = "") -> Token:
    """Return the text of directives, one each line; a small block stays on its directive's line."""
    return Token("".join(_lines(nodes, indent)))


def _lines(nodes: Iterable[Node], indent: str, block: str = "") -> Iterable[str]:
    before, content = Directive(""), ""
    for node in nodes:
        if isinstance(node, Entry):
            # Of the blocks with entries, only a map reads variables in its values.
            yield f"{indent}{_key(node)} {quote(node.value, takes_variables=block == 'map')};\n"
            continue
        head = _head(node)
        if node.block is None:
            yield f"{indent}{head};\n"
            continue
        if line := _on_one_line(head, node.block, indent):
            yield line
            continue
        if node.block is not before.block or node.name != before.name:  # two locations of one path share their block
            before, content = node, "".join(_lines(node.block, f"{indent} ", node.name))
        yield f"{indent}{head} {{\n{content}{indent}}}\n"


def _head(directive: Directive) -> str:
    return _head_of(directive.name, directive.args)


@lru_cache(maxsize=1 << 13)  # most directives of a site say the same as one before
def _head_of(name: str, args: tuple[Word, ...]) -> str:
    if not args:
        return name
    directive = Directive(name, args)
    words = [_word(directive, position) for position in range(len(args))]
    return f"{name} {' '.join(words)}"


def _word(directive: Directive, position: int) -> Token:
    word = directive.args[position]
    if isinstance(word, str) and len(word) < MAX_TOKEN and _BARE.match(word):
        return Token(word)
    if directive.name == "if" and position == 1 and isinstance(word, Interpolated):
        # The variable that an if requests is a name, not a text with variables: nginx knows no ${name} there.
        match word.parts:
            case (Variable(name),):
                return quote(f"${name}", takes_variables=False)
        raise UnquotableError("an if tests one variable")
    return quote(word, takes_variables=_takes_variables(directive, position))


def _takes_variables(directive: Directive, position: int) -> bool:
    name, args, _ = directive
    if name in LITERAL_DIRECTIVES:
        return False
    if name in NAMING:
        if position == 0 and isinstance(args[0], str) and "$" in args[0]:
            raise UnquotableError(f"{name} {args[0]!r}: a variable that is read is no plain text")
        return position == 0
    if name == "if":
        # if ( $name = text ): a regular expression is read as it stands.
        return position > 0 and args[position - 1] in {"=", "!="}
    if position:
        return True
    is_regex = (
        isinstance(args[0], str) and args[0].startswith("~") and name.startswith(("proxy_cookie_", "proxy_redirect"))
    )
    return name not in LITERAL_FIRST and not is_regex


def _on_one_line(head: str, block: tuple[Node, ...], indent: str) -> str:
    if len(block) > 1 or (block and (isinstance(block[0], Entry) or block[0].block is not None)):
        return ""
    line = f"{indent}{head} {{ {' '.join(f'{_head(inner)};' for inner in block if isinstance(inner, Directive))} }}\n"
    return line if len(line) <= _ONE_LINE else ""


def _key(entry: Entry) -> Token:
    key = entry.key
    if entry.kind is KeyKind.REGEX:
        key = f"~{key}"
    elif entry.kind is KeyKind.REGEX_ANY_CASE:
        key = f"~*{key}"
    elif entry.kind is KeyKind.LITERAL and (key in _MAGIC_KEYS or key[:1] in {"~", "\\"}):
        key = f"\\{key}"
    return quote(key, takes_variables=False)


__all__ = [
    "LITERAL_DIRECTIVES",
    "LITERAL_FIRST",
    "MAX_TOKEN",
    "Interpolated",
    "Token",
    "UnquotableError",
    "format_nodes",
    "quote",
]
