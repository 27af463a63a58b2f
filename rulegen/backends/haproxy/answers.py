"""Changes of the answers of backends (cookies, redirects, compression), and logging of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.haproxy.tree import log_format, matches, sample, statement
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine
    from rulegen.model.ingress.ir import LocationPolicy
    from rulegen.model.ingress.values.settings import Settings

_SYSLOG: Final = "/dev/log"
_SILENT: Final = ("http-request", "set-log-level", "silent")


def answer_lines(policy: LocationPolicy) -> Iterator[ConfigLine]:
    """Yield the lines that change cookies and redirects of a backend, and that control the log of its requests."""
    if policy.cookie_domain is not None:
        before, after = policy.cookie_domain
        pattern = rf"^(.*;\x20*(?i:domain=)\.?){regex.escape(before.removeprefix('.'))}(\x20*(?:;.*)?)$"
        yield statement("http-response", "replace-header", "Set-Cookie", pattern, log_format(rf"\1{after}\2"))
    if policy.cookie_path is not None:
        before, after = policy.cookie_path
        pattern = rf"^(.*;\x20*(?i:path=)){regex.escape(before)}(.*)$"
        yield statement("http-response", "replace-header", "Set-Cookie", pattern, log_format(rf"\1{after}\2"))
    if policy.redirect_rewrite is not None:
        before, after = policy.redirect_rewrite
        pattern = f"^{regex.escape(before)}(.*)$"
        yield statement("http-response", "replace-header", "Location", pattern, log_format(rf"{after}\1"))
    if not policy.access_log:
        yield statement(*_SILENT)


def compression_lines(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the lines for the compression of answers."""
    if settings.use_gzip:
        yield statement("compression", "algo", "gzip")
        types = ("text/html", *(text for text in settings.gzip_types if text != "text/html"))
        for start in range(0, len(types), 40):
            yield statement("compression", "type", *types[start : start + 40])


def uncompressed_lines(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the lines for browsers that get no compressed answers; backends do not get their Accept-Encoding."""
    if settings.use_gzip and settings.gzip_disable:
        when = matches(sample("req.fhdr", "user-agent"), "reg", settings.gzip_disable, ignores_case=True)
        yield statement("http-request", "del-header", "Accept-Encoding", when=when)


def log_lines(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the lines for the log of requests in the system's log."""
    if settings.logs_access:
        yield statement("log", _SYSLOG, "local0", "info")
        yield statement("option", "httplog")


def silent_lines(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the lines for URLs that are not logged."""
    for text in settings.skip_access_log_urls if settings.logs_access else ():
        pattern = text.removeprefix("~*").removeprefix("~")
        when = matches(sample("var", "txn.request_uri"), "reg", pattern, ignores_case=text.startswith("~*"))
        yield statement(*_SILENT, when=when)
