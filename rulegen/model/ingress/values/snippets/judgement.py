"""Judges snippets: whether they may refuse requests, and which of their directives have no effect."""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.model.ingress.values.snippets.directives import (
    DEFINITIONS,
    HARMLESS,
    OF_AUTH_SUBREQUESTS,
    PROTECTING,
    KnownDirective,
    says_who,
    sets_variable_of_nginx,
)
from rulegen.model.ingress.values.snippets.reader import SnippetDirective, read_snippet
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHOWN: Final = 3
_FILES: Final = (("return", ("200",)), ("return", ("204",)), ("return", ("404",)))
_PREFLIGHTS: Final = (("return", ("200",)), ("return", ("204",)))
_WORDS: Final = 40
"""Maximum length of a directive in a message."""


class SnippetPlace(enum.Enum):
    """The place to which ingress-nginx copies a snippet; it determines which directives are harmless."""

    LOCATION = "location"
    SERVER = "server"
    HTTP = "http"
    AUTH = "location of requests to the auth server"
    MODSECURITY = "rules of ModSecurity"
    ELSEWHERE = "part that serves no HTTP requests"


class SnippetFinding(NamedTuple):
    """A directive that may refuse requests, the blocks around it, and its effect."""

    directive: SnippetDirective
    inside: tuple[str, ...]
    known: KnownDirective

    def __str__(self) -> str:
        words = printable(" ".join((self.directive.name, *self.directive.words)), _WORDS)
        where = f" in {printable(' '.join(self.inside), _WORDS)}" if self.inside else ""
        instead = f"; instead: {self.known.instead}" if self.known.instead else ""
        return f'line {self.directive.line}: "{words}"{where} ({self.known.does}{instead})'


class Judgement(msgspec.Struct, frozen=True):
    """The result for a snippet.

    Attributes:
        message: Message for the user; empty for an empty snippet.
        protects: Whether the snippet may refuse requests.
    """

    message: str = ""
    protects: bool = False

    def __bool__(self) -> bool:
        """Whether there is a message."""
        return bool(self.message)


@lru_cache(512)
def judged(text: str, place: SnippetPlace) -> Judgement:
    """Return the judgement of a snippet. A snippet that cannot be parsed counts as protecting."""
    if not text.strip():
        return Judgement()
    if place is SnippetPlace.ELSEWHERE:
        return Judgement("snippets are never used: nothing is served for it")
    if place is SnippetPlace.MODSECURITY:
        return _rules(text)
    try:
        directives = read_snippet(text)
    except ValueError as error:
        return Judgement(f"it cannot be read ({error}), so it may refuse requests", protects=True)
    findings = list(_protecting(directives, place))
    if findings:
        shown = "; ".join(map(str, findings[:_SHOWN]))
        more = f"; and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
        return Judgement(f"snippets are never used, and this one may refuse requests: {shown}{more}", protects=True)
    return Judgement(_harmless(directives)) if directives else Judgement()


def _protecting(
    directives: Iterable[SnippetDirective], place: SnippetPlace, inside: tuple[str, ...] = ()
) -> Iterator[SnippetFinding]:
    """Yield the directives that may refuse requests, with the blocks around them."""
    for directive in directives:
        name = directive.name
        if place is SnippetPlace.AUTH:
            if name not in OF_AUTH_SUBREQUESTS or directive.block is not None:
                instead = "auth-proxy-set-headers" if name == "proxy_set_header" else ""
                yield SnippetFinding(
                    directive, inside, KnownDirective("changes the request to the auth server", instead)
                )
        elif name in {"location", "if"} and directive.block is not None and place is not SnippetPlace.HTTP:
            if _answers_preflights(directive) or _answers_robots(directive):
                continue
            within = list(_protecting(directive.block, place, (name, *directive.words)))
            yield from within
            if name == "location" and not within:  # nginx then serves files, or 404, instead of the backend's response
                yield SnippetFinding(directive, inside, KnownDirective("answers instead of the backend"))
        elif place is SnippetPlace.HTTP and name in DEFINITIONS:
            continue
        elif name in PROTECTING:
            yield SnippetFinding(directive, inside, PROTECTING[name])
        elif says_who(name, directive.words):
            yield SnippetFinding(
                directive,
                inside,
                KnownDirective("may prove the identity of a client to the backend", "auth-response-headers"),
            )
        elif sets_variable_of_nginx(name, directive.words):
            yield SnippetFinding(directive, inside, KnownDirective("sets a variable that nginx reads"))
        elif name not in HARMLESS or (directive.block is not None and name != "types"):
            yield SnippetFinding(directive, inside, KnownDirective("may have any effect"))


def _answers_preflights(directive: SnippetDirective) -> bool:
    """Whether a block only answers OPTIONS requests. Without it the backend answers them, which opens nothing."""
    condition = "".join(directive.words).strip("()")
    return (
        directive.name == "if"
        and condition in {"$request_method=OPTIONS", "$request_method~*OPTIONS"}
        and all(
            inner.block is None and (inner.name in HARMLESS or inner[:2] in _PREFLIGHTS)
            for inner in directive.block or ()
        )
    )


def _answers_robots(directive: SnippetDirective) -> bool:
    """Whether a location only answers robots.txt or favicon.ico, without any protection."""
    path = directive.words[1:] if directive.words[:1] == ("=",) else directive.words
    return (
        directive.name == "location"
        and path in {("/robots.txt",), ("/favicon.ico",)}
        and all(
            inner.block is None and (inner.name in HARMLESS or (inner.name, inner.words[:1]) in _FILES)
            for inner in directive.block or ()
        )
    )


def _harmless(directives: Iterable[SnippetDirective]) -> str:
    """Return the message for a snippet that protects nothing."""
    names: dict[str, str] = {}
    for directive in directives:
        known = HARMLESS.get(directive.name)
        if known is not None:
            names[directive.name] = known.instead
        for inner in directive.block or ():
            if (known := HARMLESS.get(inner.name)) is not None:
                names[inner.name] = known.instead
    parts = [f"{name} (instead: {instead})" if instead else name for name, instead in names.items()]
    shown = ", ".join(parts[:_SHOWN]) + (f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else "")
    return f"snippets are never used; without effect: {shown}" if shown else "snippets are never used"


_DETECTS: Final = frozenset({"off", "detectiononly"})


def _rules(text: str) -> Judgement:
    """Return the judgement of ModSecurity rules. Without `SecRuleEngine On` they only detect and reject nothing."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        name, value = words[0].lower(), words[1].strip("\"'").lower() if len(words) > 1 else ""
        if name == "secruleengine" and value in _DETECTS:
            continue
        switches = name in {"secruleengine", "include", "secremoterules"} or "ctl:ruleengine" in line.lower()
        if switches or line.endswith("\\") or "'" in line:
            message = (
                f"ModSecurity is not available, and line {number} ({quoted(words[0])}) may make it refuse requests"
            )
            return Judgement(message, protects=True)
    return Judgement("ModSecurity is not available: its rules have no effect")
