"""Reads the facts of a host from a document, for plans without that host: `--host FILE`.

The document is parsed YAML or JSON. The facts are either below the key `host` (other keys are ignored), or they are the
document itself:

    hostname: worker1                        # optional, as all the rest
    interfaces:
    - name: eth0
      addresses: [192.168.50.10/24, "fd00:50::10/64"]
    sysctls: {net.ipv4.ip_forward: 1}
    iptables: 1.8.9                          # the version
    nfacct: true                             # whether the kernel supports nfacct
    ipv6: true                               # whether the host has IPv6
    kernel: 6.1.0                            # its release
    gateways: [192.168.50.1]                 # next hops of its default routes
    root_ports: [TCP/10250]                  # ports of root's programs, except on loopback addresses
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rulegen.errors import Fault, InputError
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.net import Address, family_of, parse_address
from rulegen.text import described, number, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOPBACK = Interface("lo", ((IPv4Address("127.0.0.1"), 8), (IPv6Address("::1"), 128)))
"""The loopback interface, which every host has even if it is not listed."""

_KNOWN = ("hostname", "interfaces", "sysctls", "iptables", "nfacct", "ipv6", "kernel", "gateways", "root_ports")
_RANDOM_FULLY_SINCE = (1, 6, 2)
_VERSION = re.compile(r"v?(?P<version>[0-9]+(\.[0-9]+){1,3})(\s|$)")
_INTERFACE_NAME_MAX = 15
_PORT = re.compile(r"(?P<protocol>TCP|UDP|SCTP)/(?P<port>[0-9]{1,5})")


def facts_from_document(document: object, source: str) -> HostFacts:
    """Return the facts in a document.

    Args:
        document: The parsed document.
        source: Its file, for messages.

    Raises:
        InputError: The document is invalid; the error names all faults, each with its path.
    """
    faults: list[Fault] = []
    prefix = ""
    if isinstance(document, dict) and "host" in document:
        document, prefix = document["host"], "host"
    facts = _facts(document, prefix, faults)
    if faults:
        raise InputError(source, "; ".join(str(fault) for fault in faults))
    return facts


def knows_random_fully(version: str) -> bool | None:
    """Return whether this version of iptables supports `--random-fully`; None if the text contains no version.

    >>> knows_random_fully("iptables v1.8.9 (nf_tables)"), knows_random_fully("1.6.1"), knows_random_fully("new")
    (True, False, None)
    """
    match = _VERSION.search(version)
    return tuple(int(part) for part in match["version"].split(".")) >= _RANDOM_FULLY_SINCE if match else None


def _facts(document: object, path: str, faults: list[Fault]) -> HostFacts:
    if not isinstance(document, dict):
        faults.append(Fault(path, f"expected the facts of a host as a mapping, not {described(document)}"))
        return HostFacts()
    dot = f"{path}." if path else ""
    faults += [
        Fault(f"{dot}{_key(key)}", f"unknown; known are {', '.join(_KNOWN)}") for key in document if key not in _KNOWN
    ]
    hostname = _one(document, dot, "hostname", str, faults) or ""
    version = document.get("iptables")
    random_fully = knows_random_fully(version) if isinstance(version, str) else None if version is not None else True
    if random_fully is None:
        faults.append(Fault(f"{dot}iptables", f"{described(version)} is not a version such as 1.8.9"))
    ipv6 = _one(document, dot, "ipv6", bool, faults)
    return HostFacts(
        hostname=hostname.strip().lower(),
        interfaces=tuple(_interfaces(document.get("interfaces"), f"{dot}interfaces", faults)),
        sysctls=MappingProxyType(dict(_sysctls(document.get("sysctls"), f"{dot}sysctls", faults))),
        random_fully=bool(random_fully),
        nfacct=_one(document, dot, "nfacct", bool, faults),
        ipv6=ipv6 is not False,
        kernel=(_one(document, dot, "kernel", str, faults) or "").strip(),
        gateways=frozenset(_gateways(document.get("gateways"), f"{dot}gateways", faults)),
        root_ports=_root_ports(document.get("root_ports"), f"{dot}root_ports", faults),
    )


def _one(document: Mapping[str, Any], dot: str, key: str, kind: type, faults: list[Fault]) -> Any:
    """Return the value of an optional key; None if it is missing or has another type (the latter is a fault)."""
    value = document.get(key)
    if value is None or isinstance(value, kind):
        return value
    expected = "true or false" if kind is bool else "a text"
    faults.append(Fault(f"{dot}{key}", f"expected {expected}, not {described(value)}"))
    return None


def _interfaces(value: object, path: str, faults: list[Fault]) -> Iterator[Interface]:
    """Yield the loopback interface, then the listed ones; a listed `lo` adds its addresses."""
    listed: dict[str, Interface] = {"lo": LOOPBACK}
    for index, entry in enumerate(_list(value, path, faults)):
        here = f"{path}[{index}]"
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= _INTERFACE_NAME_MAX or re.search(r"[\s/]", name):
            faults.append(
                Fault(here, "expected an interface: name (1 to 15 characters, no blank, no `/`) and addresses")
            )
            continue
        known = listed.get(name, Interface(name))
        if name != "lo" and name in listed:
            faults.append(Fault(f"{here}.name", f"{quoted(name)} is listed twice"))
        addresses = _addresses(entry.get("addresses"), f"{here}.addresses", faults)
        merged = dict.fromkeys((*known.addresses, *addresses))
        listed[name] = Interface(name, tuple(merged))
    yield from listed.values()


def _addresses(value: object, path: str, faults: list[Fault]) -> Iterator[tuple[Address, int]]:
    for index, text in enumerate(_list(value, path, faults)):
        try:
            yield _address(text)
        except ValueError:
            shown = quoted(text) if isinstance(text, str) else described(text)
            faults.append(Fault(f"{path}[{index}]", f"{shown} is not an address with its prefix, as 10.0.0.1/24"))


def _gateways(value: object, path: str, faults: list[Fault]) -> Iterator[Address]:
    for index, text in enumerate(_list(value, path, faults)):
        try:
            yield parse_address(text if isinstance(text, str) else "")
        except ValueError:
            shown = quoted(text) if isinstance(text, str) else described(text)
            faults.append(Fault(f"{path}[{index}]", f"{shown} is not an address such as 192.0.2.1"))


def _root_ports(value: object, path: str, faults: list[Fault]) -> frozenset[tuple[str, int]] | None:
    """Return protocol and port of each entry; None if there is no list: the ports are unknown."""
    if value is None:
        return None
    ports = set()
    for index, text in enumerate(_list(value, path, faults)):
        matched = _PORT.fullmatch(text) if isinstance(text, str) else None
        if matched and 0 < int(matched["port"]) <= 65535:
            ports.add((matched["protocol"], int(matched["port"])))
        else:
            faults.append(Fault(f"{path}[{index}]", f"{described(text)} is not a protocol and port, as TCP/10250"))
    return frozenset(ports)


def _address(text: object) -> tuple[Address, int]:
    """Return an address and its prefix length; without a length, all bits.

    Raises:
        ValueError: The text is not an address with an optional prefix length.
    """
    if not isinstance(text, str):
        raise ValueError  # noqa: TRY004 - the caller words both faults alike
    body, slash, length = text.partition("/")
    address = parse_address(body)
    bits = family_of(address).bits
    if not slash:
        return address, bits
    if not (length.isascii() and length.isdigit() and int(length[:4]) <= bits):
        raise ValueError
    return address, int(length)


def _sysctls(value: object, path: str, faults: list[Fault]) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    if not isinstance(value, dict):
        faults.append(Fault(path, f"expected names and values, not {described(value)}"))
        return
    for name, setting in value.items():
        if isinstance(name, str) and isinstance(setting, str | int):
            yield name, setting.strip() if isinstance(setting, str) else number(int(setting))
        else:
            faults.append(Fault(f"{path}.{_key(name)}", f"expected a value, not {described(setting)}"))


def _list(value: object, path: str, faults: list[Fault]) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    faults.append(Fault(path, f"expected a list, not {described(value)}"))
    return []


def _key(key: object) -> str:
    return printable(key) if isinstance(key, str) else f"({described(key)})"
