"""Readers of annotations and settings: they convert untrusted text to typed values.

Each function takes the text of an annotation or of a ConfigMap key. It returns a value, or raises ValueError with the
fault and the expected form. Expressions match the whole text, including a final newline. The accepted words are those
of ingress-nginx; the syntax is that of RFC 9110 (headers), RFC 6265 (cookies) and RFC 3986 (URLs).
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.model.ingress.values.texts import IN_ANSWERS, OF_REQUEST, Reference, Subject, Text, read_text, text_of
from rulegen.net import Address, AddressKind, Network, kind_of_address, parse_address, parse_network
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["printable", "quoted", "re"]

MAX_VALUE: Final = 4096
"""Maximum length of an annotation in bytes; nginx limits a token to this length."""
MAX_WRITTEN: Final = 3500
"""Maximum length of a value in bytes as written for nginx, where quotes and dollar signs need several bytes."""
MAX_NETWORKS: Final = 1000
TRUE: Final = frozenset({"true", "True", "TRUE", "t", "T", "1"})
"""Words for true, as Go's ParseBool reads them."""
MAX_TIME_S: Final = 2_147_483

HOP_BY_HOP: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Hop-by-hop headers, and those that delimit a message. If an object could set them, it could break the framing."""
HOPS_HEADER: Final = "X-Rulegen-Hops"
"""Header for loop detection: each rulegen nginx adds a mark to it in each request that it passes on."""

_INT: Final = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z")
_SIZE: Final = re.compile(r"([0-9]{1,10})([kKmMgG]?)\Z")
_SECONDS: Final = re.compile(r"([0-9]{1,7})(s|m|h|)\Z")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,78}[A-Za-z0-9])?\Z")
_HEADER_TEXT: Final = re.compile(r"[\x20-\x7e]{0,2000}\Z")
_COOKIE_NAME: Final = re.compile(r"[A-Za-z0-9!#&'*+.^_`|~-]{1,100}\Z")
_COOKIE_PATH: Final = re.compile(r"/[A-Za-z0-9._~!&'()*+,=:@%/-]{0,500}\Z")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!&'()*+,;=:@%/-]{0,1000}\Z")
_URL_TEXT: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!&'()*+,;=%${}-]{1,2000}\Z")
# $request_uri and $uri always start with a slash, so they may directly follow the host, as many users write it.
_SLASHED: Final = r"\$(?:\{(?:request_uri|uri)\}|(?:request_uri|uri)(?![A-Za-z0-9_]))"
_URL: Final = re.compile(rf"(https?)://((?:(?!{_SLASHED})[^/?#])*)((?:[/?#]|{_SLASHED}).*)?\Z")
_AUTHORITY: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|(?:[A-Za-z0-9.-]|\$\{\w+\}|\$\w+)+)(?::([0-9]{1,5}))?\Z", re.ASCII)
_HOST_VARIABLE: Final = re.compile(r"\$\{\w+\}|\$\w+", re.ASCII)
_MAX_HOST: Final = 253
_CIPHERS: Final = re.compile(r"[A-Za-z0-9:+!@=_-]{1,1500}\Z")

PROTOCOLS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
NEXT_UPSTREAM: Final = (
    "error",
    "timeout",
    "invalid_header",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "non_idempotent",
    "off",
)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Url(NamedTuple):
    """An absolute URL.

    Attributes:
        scheme: `http` or `https`; empty for that of the request.
        name: A DNS name in lower case or an address (IPv6 in brackets); it may contain variables of the request's host.
        port: Port; 0 for the default of the scheme.
        rest: Path, query and fragment.
    """

    scheme: str
    name: Text
    port: int
    rest: Text

    @property
    def host(self) -> str:
        """The name if it has no variables, else empty."""
        return self.name.literal or ""

    @property
    def authority(self) -> Text:
        """The host, with the port if the URL has one."""
        return text_of([*self.name.parts, f":{self.port}" * bool(self.port)])

    @property
    def text(self) -> Text:
        """The whole URL."""
        scheme = (f"{self.scheme}://",) if self.scheme else (Reference(Subject.SCHEME), "://")
        return text_of([*scheme, *self.authority.parts, *self.rest.parts])

    def bound(self, values: Mapping[Subject, str]) -> Url:
        """Return the URL with these subjects replaced by values."""
        return self._replace(name=self.name.bound(values), rest=self.rest.bound(values))


def boolean(text: str) -> bool:
    """Return a boolean, as Go's ParseBool reads it."""
    if text in TRUE:
        return True
    if text in {"false", "False", "FALSE", "f", "F", "0"}:
        return False
    raise ValueError(f"{quoted(text)} is neither true nor false")


def integer(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of decimal numbers from `least` to `most`."""
    return partial(_integer, least, most)


def _integer(least: int, most: int, text: str) -> int:
    if not _INT.match(text) or not least <= int(text) <= most:
        raise ValueError(f"{quoted(text)} is not a number from {least} to {most}")
    return int(text)


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `least` to `most`, which may be negative."""
    return partial(_whole_number, least, most)


def _whole_number(least: int, most: int, text: str) -> int:
    if not re.match(r"[+-]?[0-9]{1,10}\Z", text) or not least <= int(text) <= most:
        raise ValueError(f"{quoted(text)} is not a whole number from {least} to {most}")
    return int(text)


def number(text: str) -> float:
    """Return a number with at most three decimal places."""
    if not re.match(r"[0-9]{1,6}(?:\.[0-9]{1,3})?\Z", text):
        raise ValueError(f"{quoted(text)} is not a number such as 5 or 1.5")
    return float(text)


def seconds(text: str) -> int:
    """Return a time in seconds. A unit (`s`, `m`, `h`) is accepted, because users write it, although none is needed."""
    match = _SECONDS.match(text)
    value = int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else -1
    if not 0 <= value <= MAX_TIME_S:
        raise ValueError(f"{quoted(text)} is not a time in seconds, up to {MAX_TIME_S}")
    return value


def size(most: int = 1 << 40, least: int = 0) -> Callable[[str], int]:
    """Return a reader of sizes in bytes, which may have the unit `k`, `m` or `g`."""
    return partial(_size, least, most)


def _size(least: int, most: int, text: str) -> int:
    match = _SIZE.match(text)
    value = int(match[1]) * _UNITS[match[2].lower()] if match else -1
    if not least <= value <= most:
        bounds = f"from {spell_size(least)} to {spell_size(most)}" if least else f"up to {spell_size(most)}"
        raise ValueError(f"{quoted(text)} is not a size such as 8k or 1m, {bounds}")
    return value


def spell_size(value: int) -> str:
    """Return a size in nginx's notation, with the unit `m` or `k` if possible."""
    for unit in ("m", "k"):
        if value and value % _UNITS[unit] == 0:
            return f"{value // _UNITS[unit]}{unit}"
    return str(value)


def choice(*words: str) -> Callable[[str], str]:
    """Return a reader that accepts one of these words."""
    return partial(_choice, words)


def _choice(words: Collection[str], text: str) -> str:
    if text not in words:
        raise ValueError(f"{quoted(text)} is not one of {', '.join(words)}")
    return text


def choice_number(*numbers: int) -> Callable[[str], int]:
    """Return a reader that accepts one of these numbers."""
    words = tuple(str(number_) for number_ in numbers)
    return lambda text: int(_choice(words, text))


def items(text: str) -> list[str]:
    """Return the items of a comma-separated list without surrounding white space; empty items are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list; an address means a network of one address, and host bits are cleared."""
    unique = dict.fromkeys(network(part) for part in items(text))
    if not unique or len(unique) > MAX_NETWORKS:
        raise ValueError(f"{quoted(text)} is not a list of 1 to {MAX_NETWORKS} networks such as 10.0.0.0/8, fd00::/64")
    return tuple(unique)


def network(text: str) -> Network:
    """Return a network; an address means a network of one address."""
    try:
        if "/" not in text:
            address = parse_address(text)
            return parse_network(f"{address}/{address.max_prefixlen}")
        return parse_network(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} is not a network such as 10.0.0.0/8 or fd00::/64") from None


def next_upstream(text: str) -> tuple[str, ...]:
    """Return the failures after which nginx tries the next server, as in `proxy_next_upstream`."""
    return words(*NEXT_UPSTREAM)(text)


def header_name(text: str) -> str:
    """Return a header name that nginx passes on: letters, digits, `-` and `_`."""
    if not _HEADER_NAME.match(text):
        raise ValueError(f"{quoted(text)} is not the name of a header: letters, digits, - and _ inside, at most 80")
    return text


def header_names(text: str) -> tuple[str, ...]:
    """Return the header names of a list without duplicates."""
    return tuple(dict.fromkeys(header_name(part) for part in items(text)))


def settable_headers(text: str) -> tuple[str, ...]:
    """Return the header names of a list without duplicates; each of them may be set by an object."""
    return tuple(dict.fromkeys(settable_header(part) for part in items(text)))


def settable_header(text: str) -> str:
    """Return a header name that an object may set; see `HOP_BY_HOP` and `HOPS_HEADER`."""
    if text.lower() in HOP_BY_HOP:
        raise ValueError(f"{quoted(text)} cannot be set: it defines the length of the message")
    if text.lower().replace("_", "-") == HOPS_HEADER.lower():
        raise ValueError(f"{quoted(text)} cannot be set: rulegen uses it to detect loops")
    return header_name(text)


def header_text(text: str) -> str:
    """Return the value of a header: printable ASCII, in which a dollar sign is literal."""
    if not _HEADER_TEXT.match(text):
        raise ValueError(f"{quoted(text)} is not the value of a header: printable ASCII, at most 2000 characters")
    return writable(text)


def request_header_text(text: str) -> Text:
    """Return the value of a request header; it may contain variables."""
    return read_text(header_text(text), OF_REQUEST)


def answer_header_text(text: str) -> Text:
    """Return the value of a response header; it may contain variables."""
    return read_text(header_text(text), IN_ANSWERS)


def writable(text: str) -> str:
    """Return a text that fits into one token of nginx, with all quoting."""
    if len(text.encode()) + text.count('"') + text.count("\\") + 8 * text.count("$") > MAX_WRITTEN:
        raise ValueError(f"{quoted(text)} is longer than nginx reads, quoted")
    return text


def cookie_name(text: str) -> str:
    """Return the name of a cookie (RFC 6265)."""
    if not _COOKIE_NAME.match(text):
        raise ValueError(f"{quoted(text)} is not the name of a cookie")
    return text


def cookie_path(text: str) -> str:
    """Return the path of a cookie, for example `/app`."""
    if not _COOKIE_PATH.match(text):
        raise ValueError(f"{quoted(text)} is not a path such as /app")
    return text


def cookie_domain(text: str) -> str:
    """Return the domain of a cookie in lower case, without a leading dot."""
    return host(text.removeprefix("."))


def host(text: str) -> str:
    """Return a host name in lower case: a DNS name, also with the prefix `*.`."""
    lowered = text.lower()
    if not is_subdomain(lowered.removeprefix("*.")) or _is_address(lowered):
        raise ValueError(f"{quoted(text)} is not the name of a host")
    return lowered


def hosts(text: str) -> tuple[str, ...]:
    """Return the host names of a list without duplicates; names that look like an address are rejected."""
    names = tuple(dict.fromkeys(host(part) for part in items(text)))
    for name in names:
        if may_be_address(name):
            raise ValueError(f"{quoted(name)} ends in a number, as an address does")
    return names


def may_be_address(host: str) -> bool:
    """Whether a host name can also be read as an IPv4 address, itself or, for a wildcard, a name below it.

    nginx reads `127.000.000.001` as an address, but the API accepts it as a DNS name; `*.0.0.1` matches 127.0.0.1. No
    top-level domain is a number (RFC 3696, section 2).
    """
    return host.rpartition(".")[2].isdigit()


def plain_host(text: str) -> str:
    """Return a host name without wildcard."""
    if text.startswith("*"):
        raise ValueError(f"{quoted(text)} is not the name of one host")
    return host(text)


def host_and_port(text: str) -> str:
    """Return a valid value of the header Host: a name or an address, optionally with a port."""
    match = _AUTHORITY.match(text)
    is_valid = match and not text.startswith("$") and int(match[2] or 1) in range(1, 65536)
    if not match or not is_valid or len(match[1]) > _MAX_HOST:
        raise ValueError(f"{quoted(text)} is not the name of a host")
    return writable(text)


def path(text: str) -> str:
    """Return an absolute path. `//host` is rejected, because browsers read it as another host."""
    if not _PATH.match(text) or text.startswith("//"):
        raise ValueError(f"{quoted(text)} is not a path such as /app")
    return text


def url(
    in_host: frozenset[Subject] = frozenset(), in_rest: frozenset[Subject] = frozenset(), *, captures: bool = False
) -> Callable[[str], Url]:
    """Return a reader of absolute http(s) URLs; the arguments are the allowed variables in the host and behind it."""
    return partial(_url, in_host, in_rest, captures)


def _url(in_host: frozenset[Subject], in_rest: frozenset[Subject], captures: bool, text: str) -> Url:  # noqa: FBT001
    match = _URL.match(text)
    if not match or not _URL_TEXT.match(text):
        raise ValueError(f"{quoted(text)} is not a URL such as https://example.com/path")
    authority = _AUTHORITY.match(match[2])
    if not authority or not is_host(_HOST_VARIABLE.sub("x", authority[1])):
        raise ValueError(f"{quoted(text)}: {quoted(match[2])} is not a host")
    port = int(authority[2] or 0)
    if port > 65535:
        raise ValueError(f"{quoted(text)}: {port} is not a port")
    rest = read_text(match[3] or "", in_rest, captures=captures)
    return Url(match[1], read_text(authority[1].lower(), in_host), port, rest)


def ciphers(text: str) -> str:
    """Return a list of ciphers in OpenSSL's syntax."""
    if not _CIPHERS.match(text) or not _are_known_ciphers(text):
        raise ValueError(f"{quoted(text)} is not a list of ciphers such as ECDHE-RSA-AES128-GCM-SHA256:!aNULL")
    return text


def _are_known_ciphers(text: str) -> bool:
    """Whether OpenSSL accepts a list of ciphers."""
    import ssl  # noqa: PLC0415 - loads OpenSSL, which few Ingresses need

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text)
    except ssl.SSLError:
        return False
    return True


def reference(text: str) -> tuple[str, str]:
    """Return namespace and name of an object; the namespace is empty if the text has none."""
    namespace, slash, name = text.rpartition("/")
    if (slash and not is_label(namespace)) or not is_subdomain(name):
        raise ValueError(f"{quoted(text)} is not the name of an object such as shop/web")
    return namespace, name


def name(text: str) -> str:
    """Return the name of an object in the Ingress's namespace."""
    if not is_subdomain(text):
        raise ValueError(f"{quoted(text)} is not the name of an object in this namespace")
    return text


def error_codes(text: str) -> tuple[int, ...]:
    """Return the HTTP status codes of a list for error pages; 499 is nginx's code for a request without response."""
    read = integer(300, 599)
    codes = tuple(dict.fromkeys(read(part) for part in items(text)))
    if 499 in codes:
        raise ValueError(f"{quoted(text)}: 499 means that the client has closed the connection, so it gets no answer")
    return codes


def words(*known: str) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of lists of these words, separated by white space."""

    def read(text: str) -> tuple[str, ...]:
        unique = tuple(dict.fromkeys(text.split()))
        if not unique:
            raise ValueError("empty: expected one or more of " + ", ".join(known))
        return tuple(_choice(known, word) for word in unique)

    return read


def is_private_to_node(text: str) -> bool:
    """Whether a host name means this node or its link, or is no usable address: no backend can have it."""
    if text == "localhost" or text.endswith((".localhost", ".localdomain")):
        return True
    try:
        address = parse_address(text.strip("[]"))
    except ValueError:
        return bool(re.match(r"[0-9.]+\Z|0[xX]", text))  # resolvers still accept such notations of addresses
    if re.match(r"[0-9.]+\Z", text) and str(address) != text:
        return True  # some programs read 0177.0.0.1 as octal: 127.0.0.1
    return is_private_address(address)


def is_private_address(address: Address) -> bool:
    """Whether an address is a loopback or link-local address, or is not a unicast address."""
    return kind_of_address(address) is not AddressKind.UNICAST


def is_host(text: str) -> bool:
    """Whether a text is a DNS name or an address, in upper or lower case."""
    return is_subdomain(text.lower()) or _is_address(text.strip("[]"))


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True
