"""Reads the frontend that a rule of a dispatch chain matches from the text of the rule."""

from __future__ import annotations

import re
from typing import Final

from rulegen.languages.language import FrontendKey
from rulegen.net import Protocol, parse_address

_FRONTEND: Final = re.compile(
    r"(?:-d (?P<address>[^\s/]+)/\d+ )?-p (?P<protocol>tcp|udp|sctp) (?:-m addrtype --dst-type LOCAL )?"
    r"-m (?P=protocol) --dport (?P<port>[0-9]{1,5})(?: |$)"
)
_PROTOCOLS: Final = {protocol.lower(): protocol for protocol in Protocol}


def frontend_of(spec: str) -> FrontendKey | None:
    """Return the frontend that a rule matches; None if it matches none.

    >>> frontend_of("-d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y")
    FrontendKey(address=IPv4Address('10.96.0.1'), protocol=<Protocol.TCP: 'TCP'>, port=443)
    """
    match = _FRONTEND.search(spec)
    if match is None:
        return None
    try:
        address = parse_address(match["address"]) if match["address"] else None
    except ValueError:  # a dump may contain any text
        return None
    return FrontendKey(address, _PROTOCOLS[match["protocol"]], int(match["port"]))
