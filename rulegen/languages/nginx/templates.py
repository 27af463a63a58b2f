"""Templates of a configuration: Jinja2 for the static part; values are printed only as text from the serializer.

A template, by rulegen or by a user, contains static text, `if` and `for`, and prints values. It can only print a
`Token` or an integer. A filter, `~` or a loop turns a Token into plain text, which is rejected, so no template can undo
the quoting. It cannot call functions or access Python objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.errors import ConfigError
from rulegen.languages.nginx.text import Token, format_nodes, quote

if TYPE_CHECKING:
    import jinja2

    from rulegen.languages.nginx.tree import Node, Word

_FILTERS: Final = ("first", "last", "length", "list", "reverse")
_CONTROL: Final = "Assign CondExpr For If Include Output Template TemplateData"
_EXPRESSIONS: Final = (
    "Add And Compare Const Filter FloorDiv Getattr Getitem List Mod Mul Name Neg Not Operand Or Sub Test Tuple"
)
_ALLOWED: Final = frozenset(f"{_CONTROL} {_EXPRESSIONS}".split())
_EXPLAINED: Final = {"Concat": "~", "FilterBlock": "filter", "CallBlock": "call", "Call": "a call"}


class UnquotedError(ConfigError):
    """A template that prints something other than a Token or an integer."""


@dataclass(frozen=True, slots=True)
class Filling:
    """A value of a template: how it is written, and what it means.

    Attributes:
        token: Its text.
        intended: One argument, or directives.
    """

    token: Token
    intended: Word | tuple[Node, ...]


Value = Filling | int | str | None | Sequence["Value"] | Mapping[str, "Value"]
"""What a template is given: fillings to print, integers to print or decide by, texts and None only to decide by."""


def argument(word: Word, *, takes_variables: bool = True) -> Filling:
    """Return an argument for a template to print.

    Args:
        word: What it means.
        takes_variables: Whether the directive in the template reads a dollar sign as a variable.

    Raises:
        UnquotableError: No text of a configuration means this value.
    """
    return Filling(quote(word, takes_variables=takes_variables), word)


def directives(nodes: Sequence[Node], indent: str = " ") -> Filling:
    """Return directives for a template to print, each on a line of its own.

    Raises:
        UnquotableError: As `argument`.
    """
    return Filling(format_nodes(nodes, indent), tuple(nodes))


class Templates:
    """Templates by file name, each of which may include the others."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """Keep the texts; each is read when it is first rendered."""
        self._sources = dict(sources)
        self._environment: jinja2.Environment | None = None

    def render(self, name: str, values: Mapping[str, Value]) -> str:
        """Return the text that a template makes of values; equal values give equal bytes.

        Raises:
            UnquotedError: It prints something that is no Token.
            ConfigError: There is no such template, or it is wrong; with its name and line.
        """
        import jinja2  # noqa: PLC0415 (slow to import, and only an ingress needs it)

        try:
            return self._opened().get_template(name).render({key: _shown(value) for key, value in values.items()})
        except jinja2.TemplateNotFound as error:
            raise ConfigError(f"there is no template {error.name}") from error
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(f"{error.name or name}:{error.lineno}: {error.message}") from error
        except (
            jinja2.TemplateError,
            ConfigError,
            ArithmeticError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            where = _line_of(error, self._sources) or name
            kind = UnquotedError if isinstance(error, UnquotedError) else ConfigError
            raise kind(f"{where}: {error}") from error

    def _opened(self) -> jinja2.Environment:
        if self._environment is None:
            self._environment = _environment(self._sources)
        return self._environment


def _environment(sources: Mapping[str, str]) -> jinja2.Environment:
    import jinja2  # noqa: PLC0415
    from jinja2 import nodes, sandbox  # noqa: PLC0415

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
            # A method of a Token (format) could make another one.
            return not isinstance(obj, (str, bytes)) and super().is_safe_attribute(obj, attr, value)

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            for node in tree.find_all(nodes.Node):
                kind = type(node).__name__
                if kind not in _ALLOWED:
                    what = _EXPLAINED.get(kind, kind.lower())
                    raise jinja2.TemplateSyntaxError(f"a template cannot use {what}", node.lineno or 1, name, filename)
            return tree

    environment = Environment(
        # With its name as the file, the traceback of an error names the template.
        loader=jinja2.FunctionLoader(lambda name: (sources[name], name, None) if name in sources else None),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.globals = {}
    return environment


def _printed(value: object) -> str:
    import jinja2  # noqa: PLC0415

    if type(value) is Token:
        return value
    if type(value) is int:
        return str(value)
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, and says which name it was
    raise UnquotedError(f"a template prints {_described(value)}, which was not quoted")


def _shown(value: Value) -> object:
    """Return a value as a template sees it."""
    if isinstance(value, Filling):
        return value.token
    if isinstance(value, Mapping):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_shown(inner) for inner in value)
    return value


def _described(value: object) -> str:
    text = repr(value)
    return f"a {type(value).__name__} ({text if len(text) <= 60 else text[:60] + '…'})"


def _line_of(error: BaseException, sources: Mapping[str, str]) -> str:
    """Return the template and line that an error came from; Jinja2 leaves them in the traceback."""
    where = ""
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        name = code.co_filename
        if name in sources:
            where = f"{name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return where
