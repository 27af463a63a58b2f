"""FastCGI: the application that a backend uses, with the parameters of its scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.haproxy.frontend import put, put_text, variable
from rulegen.backends.haproxy.names import mark
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.text import format_statement
from rulegen.languages.haproxy.tree import ConfigSection, is_set, log_format, matches, sample, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine
    from rulegen.model.ingress.ir import LocationPolicy

_FOLDER = "/"
"""HAProxy needs a folder of documents; the parameters that name one are set here."""


def application(policy: LocationPolicy) -> ConfigSection:
    """Return the section of the application; its name is a digest of it.

    Raises:
        UnwritableError: HAProxy has no expression for a variable of a parameter.
    """
    texts = {"SCRIPT_NAME": log_format(variable("script")), "SCRIPT_FILENAME": log_format(variable("script"))}
    texts |= {name: written(text) for name, text in policy.scripts.items()}
    lines = [statement("docroot", _FOLDER), statement("option", "keep-conn")]
    lines += [statement("set-param", name, text) for name, text in texts.items() if text.parts]
    if "HTTP_AUTHORIZATION" not in texts:  # HAProxy does not pass it on by itself
        sent = sample("req.fhdr", "authorization")
        lines.append(statement("set-param", "HTTP_AUTHORIZATION", log_format(sent), when=is_set(sent)))
    return ConfigSection("fcgi-app", f"a{mark(*map(format_statement, lines))}", tuple(lines))


def script_lines(policy: LocationPolicy) -> Iterator[ConfigLine]:
    """Yield the lines that set the script of a request, and that use the application."""
    yield put("script", variable("path"))
    if policy.script_index:
        named = log_format(variable("path"), policy.script_index)
        yield put_text("script", named, when=matches(variable("path"), "end", "/"))
    yield statement("use-fcgi-app", application(policy).name)
