"""What a case expects of its replies, checked key by key; a key that is not known here fails."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from integration.ingress.asking import Reply
from integration.ingress.forms import known
from integration.ingress.objects import UnknownForm
from integration.ingress.spaces import CLIENT


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a reply is judged with.

    Attributes:
        owners: The namespace and name of the Service by address and port.
        certificates: Certificates of a Secret by its name.
        default_certificate: The one that a name nobody serves is answered with.
        names: Addresses by DNS name.
    """

    owners: Mapping[tuple[str, int], tuple[str, str]]
    certificates: Callable[[str], list[bytes]]
    default_certificate: Callable[[], bytes]
    names: Mapping[str, str]

    def owner(self, reply: Reply) -> tuple[str, str] | None:
        """Return who answered."""
        return self.owners.get((reply.seen.get("address", ""), reply.seen.get("port", 0)))


Check = Callable[[Any, list[Reply], Facts, Mapping[str, Any]], object]
"""Takes what is expected, the replies, what to judge with and the whole expectation; returns what is wrong, or None."""


def matches(expected: str | float, got: str) -> bool:
    """Tell whether a value is as expected: itself, `~regex`, or the client's address."""
    expected = str(expected)
    if expected.startswith("~"):
        return re.search(expected[1:], got) is not None
    return got == expected.replace("$client_ip", CLIENT)


def _each(wrong: Callable[[Any, Reply], object]) -> Check:
    def check(expected: Any, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
        return next((entry for entry in (wrong(expected, reply) for reply in replies) if entry), None)

    return check


def _status(expected: int, reply: Reply) -> object:
    return reply.status != expected and f"status {reply.status} {reply.failure}"


def _status_one_of(expected: list[int], reply: Reply) -> object:
    return reply.status not in expected and f"status {reply.status} {reply.failure}"


def _location(expected: str, reply: Reply) -> object:
    return reply.all("Location") != [expected] and f"Location {reply.all('Location')}"


def _location_one_of(expected: list[str], reply: Reply) -> object:
    got = reply.all("Location")
    return (len(got) != 1 or got[0] not in expected) and f"Location {got}"


def _headers(expected: dict[str, str | float], reply: Reply) -> object:
    wrong = {key: reply.all(key) for key, value in expected.items() if not _has(value, reply.all(key))}
    return wrong and f"headers {wrong}"


def _has(expected: str | float, got: list[str]) -> bool:
    return any(matches(expected, entry) for entry in got)


def _headers_absent(expected: list[str], reply: Reply) -> object:
    there = {key: reply.all(key) for key in expected if reply.all(key)}
    return there and f"headers {there}"


def _header_count(expected: dict[str, int], reply: Reply) -> object:
    got = {key: len(reply.all(key)) for key in expected}
    return got != expected and f"header counts {got}"


def _backend_sees(expected: dict[str, Any], reply: Reply) -> object:
    if not reply.seen:
        return f"no pod answered: status {reply.status}, {reply.body[:100]!r}"
    for key, value in expected.items():
        match key:
            case "path" | "method":
                wrong = not matches(value, reply.seen[key]) and reply.seen[key]
            case "host":
                wrong = not _has(value, reply.seen_headers("Host")) and reply.seen_headers("Host")
            case "headers":
                got = {name: reply.seen_headers(name) for name in value}
                wrong = {name: got[name] for name in value if len(got[name]) != 1 or not _has(value[name], got[name])}
        if wrong:
            return f"the pod sees {key} {wrong}"
    return None


def _backend_headers_absent(expected: list[str], reply: Reply) -> object:
    there = {name: reply.seen_headers(name) for name in expected if reply.seen_headers(name)}
    return (not reply.seen and "no pod answered") or (there and f"the pod sees {there}")


def _backend_port(expected: int, reply: Reply) -> object:
    return reply.seen.get("port") != expected and f"port {reply.seen.get('port')}"


def _backend_tls(expected: bool, reply: Reply) -> object:
    return reply.seen.get("tls") != expected and f"tls {reply.seen.get('tls')}"


def _max_seconds(expected: float, reply: Reply) -> object:
    return reply.elapsed_s > expected and f"took {reply.elapsed_s:.2f} s"


def _backend(expected: str, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    wanted = (whole.get("backend_namespace") or _namespace(expected, facts), expected)
    others = {str(facts.owner(reply) or reply.seen.get("address")) for reply in replies if facts.owner(reply) != wanted}
    return others and f"answered by {sorted(others)}"


def _namespace(name: str, facts: Facts) -> str:
    """Return the namespace that is meant where none is said: `default`, or the only one with such a Service."""
    having = {namespace for namespace, service in facts.owners.values() if service == name}
    return having.pop() if len(having) == 1 else "default"


def _backend_namespace(expected: str, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    return None


def _tls_cert(expected: str, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    wanted = [facts.default_certificate()] if expected == "default-fake" else facts.certificates(expected)
    return any(reply.certificate not in wanted for reply in replies) and "another certificate"


def _upstream_name(expected: str, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    got = {reply.seen.get("address") for reply in replies}
    return got != {facts.names[expected]} and f"answered by {got}"


def _upstream_addr(expected: str | list[str], reply: Reply) -> object:
    """Compare the address that answered, with its port where one is expected."""
    address, port = reply.seen.get("address", "nobody"), reply.seen.get("port", 0)
    wanted = [expected] if isinstance(expected, str) else expected
    got = f"{address}:{port}"
    return not any(entry == address or matches(entry, got) for entry in wanted) and f"answered by {got}"


def _alpn(expected: str, reply: Reply) -> object:
    return reply.alpn != expected and f"protocol {reply.alpn!r}"


def _addresses(replies: list[Reply]) -> set[str]:
    return {reply.seen.get("address", "nobody") for reply in replies}


def _distinct_endpoints(expected: int, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    return len(_addresses(replies)) != expected and f"answered by {sorted(_addresses(replies))}"


def _min_distinct_endpoints(expected: int, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    return len(_addresses(replies)) < expected and f"answered by {sorted(_addresses(replies))}"


def _same_endpoint(expected: bool, replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    return (len(_addresses(replies)) == 1) != expected and f"answered by {sorted(_addresses(replies))}"


def _endpoints_exactly(expected: list[str], replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    return _addresses(replies) != set(expected) and f"answered by {sorted(_addresses(replies))}"


def _split(expected: dict[str, list[float]], replies: list[Reply], facts: Facts, whole: Mapping[str, Any]) -> object:
    counted = Counter((facts.owner(reply) or ("", "nobody"))[1] for reply in replies)
    shares = {name: count / len(replies) for name, count in counted.items()}
    inside = all(low <= shares.get(name, 0) <= high for name, (low, high) in expected.items())
    return (not inside or shares.keys() - expected.keys()) and f"shares {shares}"


def _status_counts(
    expected: dict[str, list[int]], replies: list[Reply], facts: Facts, whole: Mapping[str, Any]
) -> object:
    counted = Counter(str(reply.status) for reply in replies)
    inside = all(low <= counted[status] <= high for status, (low, high) in expected.items())
    return (not inside or counted.keys() - expected.keys()) and f"counts {dict(counted)}"


_CHECKS: dict[str, Check] = {
    "status": _each(_status),
    "status_one_of": _each(_status_one_of),
    "location": _each(_location),
    "location_one_of": _each(_location_one_of),
    "headers": _each(_headers),
    "headers_absent": _each(_headers_absent),
    "header_count": _each(_header_count),
    "backend_sees": _each(_backend_sees),
    "backend_headers_absent": _each(_backend_headers_absent),
    "backend_port": _each(_backend_port),
    "backend_tls": _each(_backend_tls),
    "max_seconds": _each(_max_seconds),
    "upstream_addr": _each(_upstream_addr),
    "alpn": _each(_alpn),
    "backend": _backend,
    "backend_namespace": _backend_namespace,
    "tls_cert": _tls_cert,
    "upstream_name": _upstream_name,
    "distinct_endpoints": _distinct_endpoints,
    "min_distinct_endpoints": _min_distinct_endpoints,
    "same_endpoint": _same_endpoint,
    "endpoints_exactly": _endpoints_exactly,
    "split": _split,
    "status_counts": _status_counts,
}


def wrongs(expected: Mapping[str, Any], replies: list[Reply], facts: Facts) -> list[str]:
    """Return what is not as expected, one text for each key.

    Raises:
        UnknownForm: A key is not known here.
    """
    if unknown := list(known.expectation_faults(expected, "expect")):
        raise UnknownForm("; ".join(unknown))
    checked = ((key, _CHECKS[key](value, replies, facts, expected)) for key, value in expected.items())
    return [f"{key}: expected {expected[key]!r}, got: {entry}" for key, entry in checked if entry]
