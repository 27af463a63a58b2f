"""The text of IPVS: the format of `ipvsadm -Sn` and `ipvsadm -R`, and the line of timeouts. Source: ipvsadm(8)."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

from rulegen.errors import InputError
from rulegen.languages.ipvs.state import (
    Forwarding,
    Frontend,
    RealServer,
    RealServerKey,
    Timeouts,
    VirtualServer,
    VirtualServerKey,
)
from rulegen.net import Protocol, join_host_port, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.ipvs.state import Key, Objects, Value
    from rulegen.net import Address

_PROTOCOLS = {
    "-t": Protocol.TCP,
    "--tcp-service": Protocol.TCP,
    "-u": Protocol.UDP,
    "--udp-service": Protocol.UDP,
    "--sctp-service": Protocol.SCTP,
}
_SERVICE_WORDS = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
_FORWARDING = {"-m": Forwarding.MASQUERADE, "-g": Forwarding.ROUTE, "-i": Forwarding.TUNNEL}
_FORWARDING_WORDS = {how: word for word, how in _FORWARDING.items()} | {Forwarding.LOCAL: "-g"}
_FLAG_BITS = {
    "flag-1": 0x8,
    "flag-2": 0x10,
    "flag-3": 0x20,
    "sh-fallback": 0x8,
    "sh-port": 0x10,
    "mh-fallback": 0x8,
    "mh-port": 0x10,
}
_NAMED_FLAGS = {"sh": ("sh-fallback", "sh-port", "flag-3"), "mh": ("mh-fallback", "mh-port", "flag-3")}
_FIRST = re.compile(r"^(?!#)(?=[^\n]*\S)[^\n]*", re.MULTILINE)
"""The first line with content."""
_TIMEOUTS = re.compile(r"\s*Timeout \(tcp tcpfin udp\): ([0-9]{1,10}) ([0-9]{1,10}) ([0-9]{1,10})\s*\Z")


def read(text: str, source: str) -> Objects:
    """Return all virtual and real servers that `ipvsadm -Sn` printed, ours and others'; those of marks are left out.

    Raises:
        InputError: A line is none of that format; the message has its number.
    """
    objects: Objects = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line[0] == "#":
            continue
        try:
            fresh = _read_line(line)
        except (ValueError, KeyError, StopIteration):
            raise InputError(
                source,
                f"line {number}: not a line of ipvsadm -Sn: {line[:80]!r}",
                hint="ipvsadm -Sn prints addresses and ports as numbers; without -n it prints names",
            ) from None
        for key in fresh:
            if isinstance(key, RealServerKey) and VirtualServerKey(key.frontend) not in objects:
                raise InputError(source, f"line {number}: a real server of {key.frontend}, which no line before adds")
        objects.update(fresh)
    return objects


def is_dump(text: str) -> bool:
    """Whether the text looks like the output of `ipvsadm -Sn`."""
    match = _FIRST.search(text)
    first = match[0] if match else ""
    return bool(re.match(r"-A (?:-[tuf]|--\w+-service|--fwmark-service) ", first))


def read_timeouts(text: str) -> Timeouts | None:
    """Return the timeouts that `ipvsadm -Ln --timeout` printed; None for other text."""
    match = _TIMEOUTS.match(text)
    return Timeouts(*(int(number) for number in match.groups())) if match else None


def format_timeouts(timeouts: Timeouts) -> str:
    """Return the timeouts as `ipvsadm -Ln --timeout` prints them."""
    return f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}\n"


def format_servers(objects: Mapping[Key, Value]) -> str:
    """Return the input of `ipvsadm -R`: each virtual server, followed by its real servers."""
    return "".join(f"{line}\n" for line in _lines(objects))


def virtual_server_words(frontend: Frontend, value: VirtualServer | None = None) -> str:
    """Return a virtual server as arguments of ipvsadm; without a value, only the arguments that identify it."""
    words = [_SERVICE_WORDS[frontend.protocol], join_host_port(frontend.address, frontend.port)]
    if value is None:
        return " ".join(words)
    words += ["-s", value.scheduler]
    if value.persistence_s is not None:
        words += ["-p", str(value.persistence_s)]
        if value.netmask is not None:
            words += ["-M", _netmask_text(frontend.address, value.netmask)]
    words += ["--pe", value.engine] if value.engine else []
    words += ["-o"] if value.one_packet else []
    if value.scheduler_flags:
        names = _NAMED_FLAGS.get(value.scheduler, ("flag-1", "flag-2", "flag-3"))
        words += [
            "-b",
            ",".join(name for bit, name in zip((8, 16, 32), names, strict=True) if value.scheduler_flags & bit),
        ]
    return " ".join(words)


def real_server_words(frontend: Frontend, address: Address, port: int, value: RealServer | None = None) -> str:
    """Return a real server as arguments of ipvsadm; without a value, only the arguments that identify it."""
    words = [virtual_server_words(frontend), "-r", join_host_port(address, port)]
    if value is not None:
        words += [_FORWARDING_WORDS[value.forwarding], "-w", str(value.weight)]
        words += ["-x", str(value.upper)] if value.upper else []
        words += ["-y", str(value.lower)] if value.lower else []
    return " ".join(words)


def _lines(objects: Mapping[Key, Value]) -> Iterator[str]:
    for key, value in sorted(objects.items(), key=lambda item: item[0]):
        if isinstance(key, RealServerKey) and isinstance(value, RealServer):
            yield f"-a {real_server_words(*key, value)}"
        elif isinstance(value, VirtualServer):
            yield f"-A {virtual_server_words(key.frontend, value)}"


def _read_line(line: str) -> dict[Key, Value]:
    """Return the object of a line with its key; nothing for a virtual server of a firewall mark.

    Raises:
        ValueError, KeyError, StopIteration: The line has another format.
    """
    words = iter(line.split())
    verb, kind, name = next(words), next(words), next(words)
    if verb not in {"-A", "-a"}:
        raise ValueError(verb)
    if kind in {"-f", "--fwmark-service"}:
        return {}
    frontend = Frontend.of(_PROTOCOLS[kind], *_host_port(name))
    if verb == "-A":
        server = _read_virtual(words)
        if frontend.address.version == 4 and (server.netmask or 0) > 32:
            raise ValueError(line)
        return {VirtualServerKey(frontend): server}
    if next(words) not in {"-r", "--real-server"}:
        raise ValueError(line)
    real = _host_port(next(words))
    return {RealServerKey(frontend, *real): _read_real(words)}


def _read_virtual(words: Iterator[str]) -> VirtualServer:
    scheduler, persistence, netmask, flags, one_packet, engine = "wlc", None, None, 0, False, ""
    for word in words:
        match word:
            case "-s":
                scheduler = next(words)
            case "-p":
                persistence = int(next(words))
            case "-M":
                netmask = _netmask_length(next(words))
            case "-b":
                flags = sum(_FLAG_BITS[name] for name in next(words).split(","))
            case "-o" | "--ops":
                one_packet = True
            case "--pe":
                engine = next(words)
            case "-6":
                pass
            case _:
                raise ValueError(word)
    return VirtualServer(scheduler, persistence, flags, one_packet, netmask, engine)


def _read_real(words: Iterator[str]) -> RealServer:
    weight, forwarding, upper, lower = 1, Forwarding.ROUTE, 0, 0
    for word in words:
        match word:
            case "-m" | "-g" | "-i":
                forwarding = _FORWARDING[word]
            case "-w":
                weight = int(next(words))
            case "-x":
                upper = int(next(words))
            case "-y":
                lower = int(next(words))
            case "--tun-type" | "--tun-port":
                next(words)
            case "--tun-nocsum" | "--tun-csum" | "--tun-remcsum":
                pass
            case _:
                raise ValueError(word)
    return RealServer(weight, forwarding, upper, lower)


def _host_port(text: str) -> tuple[Address, int]:
    host, _, port = text.rpartition(":")
    return parse_address(host.strip("[]")), int(port)


def _netmask_length(text: str) -> int | None:
    """Return the prefix length of a netmask, dotted for IPv4 and a number for IPv6; None for all bits.

    Raises:
        ValueError: It is none.
    """
    length = IPv4Network(f"0.0.0.0/{text}").prefixlen if "." in text else int(text)
    if not 0 <= length <= 128:
        raise ValueError(text)
    return None if length in {32, 128} else length


def _netmask_text(address: Address, length: int) -> str:
    return str(length) if address.version == 6 else str(IPv4Network((0, length)).netmask)
