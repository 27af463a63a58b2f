"""Values of one backend that HAProxy reads from maps, so that a backend with other values needs no reload.

Lines name such a map by a placeholder, so that backends of one kind have the same lines, whatever their values are.
When the name of the backend is known, a digest of it replaces the placeholder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.names import mark
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.text import UnwritableError, map_line
from rulegen.languages.haproxy.tree import ConfigLine, LogFormat, SampleCall, SampleExpression, log_format, sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.haproxy.tree import Word
    from rulegen.model.ingress.values.texts import Text

PLACEHOLDER: Final = f"-{'0' * 16}.map"
_TEXTS: Final = "texts"
_NUMBERS: Final = "numbers"


@dataclass(slots=True)
class OwnMaps:
    """The maps of one backend: their entries by kind."""

    entries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def digest(self) -> tuple[str, ...]:
        """A digest of all entries; nothing without any map."""
        return (mark(*sorted(self.entries.items())),) if self.entries else ()

    def file(self, kind: str, entries: Iterable[tuple[str, str]]) -> str:
        """Add entries to the map of a kind; return its path, with the placeholder."""
        self.entries.setdefault(kind, []).extend(entries)
        return f"maps/{kind}{PLACEHOLDER}"

    def text(self, name: str, value: str) -> LogFormat:
        """Return a text that is read from a map; the text itself if a map cannot contain it."""
        try:
            map_line(name, value)
        except UnwritableError:
            return log_format(value)
        return log_format(sample("str", name).then("map_str", self.file(_TEXTS, [(name, value)])))

    def number(self, name: str, value: int) -> SampleExpression:
        """Return the expression for a number that is read from a map."""
        return sample("str", name).then("map_str_int", self.file(_NUMBERS, [(name, str(value))]))

    def written(self, name: str, text: Text) -> LogFormat:
        """Return a text with variables as a format whose constant parts are read from a map.

        Raises:
            UnwritableError: HAProxy has no expression for one of its variables.
        """
        parts: list[str | SampleExpression] = []
        for number, part in enumerate(written(text).parts):
            parts += self.text(f"{name}-{number}", part).parts if isinstance(part, str) else (part,)
        return log_format(*parts)

    def named(self, backend: str) -> dict[str, Sequence[tuple[str, str]]]:
        """Return the entries by path for a backend of this name."""
        return {f"maps/{kind}{_suffix(backend)}": entries for kind, entries in self.entries.items()}


def _suffix(backend: str) -> str:
    return f"-{mark(backend)}.map"


def without_name(rule: str, backend: str) -> str:
    """Return a line of a configuration with the placeholder for the maps of its backend."""
    return rule.replace(_suffix(backend), PLACEHOLDER)


def named_lines(lines: Iterable[ConfigLine], backend: str) -> tuple[ConfigLine, ...]:
    """Return lines with the paths of the maps of their backend."""
    suffix = _suffix(backend)
    return tuple(ConfigLine(tuple(_named(w, suffix) for w in line.words)) if _paths(line) else line for line in lines)


def own_paths(lines: Iterable[ConfigLine], backend: str) -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return the maps of a backend without values: each of them is empty."""
    suffix = _suffix(backend)
    return {path.replace(PLACEHOLDER, suffix): () for line in lines for path in _paths(line)}


def _named(word: Word, suffix: str) -> Word:
    if isinstance(word, SampleExpression):
        return _with(word, suffix)
    if isinstance(word, LogFormat):
        return LogFormat(tuple(_with(x, suffix) if isinstance(x, SampleExpression) else x for x in word.parts))
    return word


def _with(expression: SampleExpression, suffix: str) -> SampleExpression:
    return SampleExpression(
        tuple(SampleCall(name, tuple(x.replace(PLACEHOLDER, suffix) for x in own)) for name, own in expression.calls)
    )


@lru_cache(1 << 15)  # most backends have the same lines
def _paths(line: ConfigLine) -> tuple[str, ...]:
    return tuple(_of_words(line.words))


def _of_words(words: Iterable[Word]) -> Iterator[str]:
    for word in words:
        parts = word.parts if isinstance(word, LogFormat) else (word,)
        for part in parts:
            if isinstance(part, SampleExpression):
                yield from (x for call in part.calls for x in call.arguments if x.endswith(PLACEHOLDER))
