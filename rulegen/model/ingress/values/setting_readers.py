"""Readers of values that only settings have; see also `rulegen.model.ingress.values.readers`."""

from __future__ import annotations

from functools import partial
from typing import Final

from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.readers import choice, integer, items, size
from rulegen.model.ingress.values.setting import PartialValueError, setting_of
from rulegen.model.ingress.values.snippets.judgement import Judgement, SnippetPlace, judged
from rulegen.model.ingress.values.texts import IN_LOGS, VARIABLE, Text, read_text
from rulegen.net import Network, parse_address

_MIME_TYPE: Final = r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}\Z"
_DURATION: Final = (
    r"(?=[0-9])(?:([0-9]{1,2})w)?(?:([0-9]{1,3})d)?(?:([0-9]{1,4})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s?)?\Z"
)
_UNITS_S: Final = (604800, 86400, 3600, 60, 1)
CURVES: Final = frozenset(
    {"X25519", "X448", "P-256", "P-384", "P-521", "prime256v1", "secp384r1", "secp521r1", "ffdhe2048", "ffdhe3072"}
)


def header_buffers(text: str) -> tuple[int, int]:
    """Return the number and the size of buffers."""
    parts = text.split()
    if len(parts) != 2:
        raise ValueError(f"{readers.quoted(text)} is not a number and a size such as 4 8k")
    return integer(1, 64)(parts[0]), size(1 << 20, 1 << 10)(parts[1])


def duration(text: str) -> int:
    """Return a time in seconds, as nginx reads it: numbers with units from weeks to seconds, such as 1d or 5m30s."""
    match = readers.re.match(_DURATION, text)
    value = sum(int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS_S, strict=True)) if match else -1
    if not 0 <= value <= readers.MAX_TIME_S:
        raise ValueError(f"{readers.quoted(text)} is not a time such as 10m or 1d, up to {readers.MAX_TIME_S} seconds")
    return value


def workers(text: str) -> str:
    """Return the number of worker processes, or `auto`."""
    return text if text == "auto" else str(integer(1, 512)(text))


def addresses(text: str) -> tuple[str, ...]:
    """Return the addresses of a list without duplicates.

    Raises:
        PartialValueError: Some items are no addresses.
        ValueError: No item is an address.
    """
    usable: dict[str, None] = {}
    wrong = []
    for part in items(text):
        try:
            usable[str(parse_address(part))] = None
        except ValueError:
            wrong.append(part)
    if wrong and not usable:
        raise ValueError(f"{readers.quoted(text)} contains no address")
    if wrong:
        raise PartialValueError(tuple(usable), f"{readers.quoted(wrong[0])} is not an address; the others are used")
    return tuple(usable)


def networks_or_none(text: str) -> tuple[Network, ...]:
    """Return the networks of a list; an empty text means none."""
    return readers.networks(text) if text else ()


def words_of_list(text: str) -> tuple[str, ...]:
    """Return the items of a list without duplicates."""
    return tuple(dict.fromkeys(items(text)))


def paths(text: str) -> tuple[str, ...]:
    """Return the paths of a list."""
    return tuple(readers.path(part) for part in items(text))


def protocols(text: str) -> tuple[str, ...]:
    """Return the secure TLS versions of a list, oldest first."""
    versions = {choice("SSLv2", "SSLv3", *readers.PROTOCOLS)(word) for word in text.split()} - {"SSLv2", "SSLv3"}
    if not versions:
        raise ValueError(f"{readers.quoted(text)} has no protocol that is still secure")
    return tuple(protocol for protocol in readers.PROTOCOLS if protocol in versions)


def patterns(text: str) -> tuple[str, ...]:
    """Return the patterns of a list, each as an expression."""
    return tuple(_pattern(part) for part in items(text))


def _pattern(text: str) -> str:
    """Return a pattern as an expression: `~` or `~*` precede an expression; other text is literal and ignores case."""
    if text.startswith("~"):
        return "~*" * text.startswith("~*") + regex.check(text.removeprefix("~*").removeprefix("~"))
    if len(text) > 800:
        raise ValueError(f"{readers.quoted(text)} is longer than 800 characters")
    return f"~*^{regex.escape(readers.header_text(text))}$"  # as in a map of nginx, text is compared without case


def log_format(text: str) -> Text:
    """Return a log format: one line, with variables that are allowed in logs.

    Raises:
        PartialValueError: Some variables are unknown or not allowed. They are logged as `-`, as those without a value.
    """
    if not text.isprintable() or len(text.encode(errors="replace")) > 2000:
        raise ValueError(f"{readers.quoted(text)} is not a log format: one line of at most 2000 bytes")
    unknown: dict[str, None] = {}

    def known(match: readers.re.Match[str]) -> str:
        try:
            read_text(match[0], IN_LOGS)
        except ValueError:
            unknown[match[0]] = None
            return "-"
        return match[0]

    rest = read_text(VARIABLE.sub(known, text), IN_LOGS)
    if unknown:
        names = readers.quoted(" ".join(unknown))
        raise PartialValueError(rest, f"{names}: not variables of the access log; - is logged instead")
    return rest


def affinity(text: str) -> str:
    """Return the CPU affinity of workers: `auto`, optionally with a mask of CPUs, or one mask for each worker."""
    if text and not readers.re.match(r"(?:auto(?: [01]{1,128})?|[01]{1,128}(?: [01]{1,128}){0,63})\Z", text):
        raise ValueError(f"{readers.quoted(text)} is neither auto nor masks of CPUs such as 0001 0010")
    return text


def mime_type(text: str) -> str:
    """Return a MIME type."""
    if not readers.re.match(_MIME_TYPE, text):
        raise ValueError(f"{readers.quoted(text)} is not a MIME type")
    return text


def mime_types(text: str) -> tuple[str, ...]:
    """Return a list of MIME types without text/html, which nginx always compresses."""
    words = tuple(dict.fromkeys(text.split()))
    for word in words:
        if word != "*":
            mime_type(word)
    return tuple(word for word in words if word != "text/html")


def curves(text: str) -> str:
    """Return a list of elliptic curves, or `auto`."""
    if text != "auto" and not set(text.split(":")) <= CURVES:
        raise ValueError(f"{readers.quoted(text)} is neither auto nor a list of curves such as X25519:P-256")
    return text


def connections(text: str) -> int:
    """Return the number of connections of a worker; as in ingress-nginx, 0 means the default."""
    return 16384 if text == "0" else integer(64, 1_000_000)(text)


def snippet(place: SnippetPlace, documentation: str) -> Judgement:
    """Return a field of `Settings` with the judgement of a snippet."""
    return setting_of(partial(judged, place=place), Judgement(), documentation)
