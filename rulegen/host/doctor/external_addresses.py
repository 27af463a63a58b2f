"""Checks for gateways and metadata servers whose address a rule for a Service takes."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.doctor.findings import Finding, Level
from rulegen.host.node.gateways import gateways
from rulegen.model.forbidden import METADATA
from rulegen.model.host.facts import SERVICE_DEVICE
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.doctor.patient import HostProbe

TOPIC: Final = "addresses"
_REMEDY: Final = (
    "find the Service with this external address; with --external-ip-semantics strict, apply and run ignore it"
)
_EXTERNAL: Final = re.compile(
    r'-A KUBE-SERVICES -d (?P<address>[0-9a-f.:]+)/[0-9]+ .*?--comment "?(?P<port>[^" ]+).* -j KUBE-EXT-'
)


def check_external_addresses(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about Services whose rules or bound addresses include a gateway or a metadata server.

    Raises:
        HostError: The routes or interfaces cannot be read.
    """
    theirs = {str(address): "the gateway of this node" for address in gateways()}
    theirs |= {str(address): f"the metadata server of {cloud}" for address, cloud in METADATA.items()}
    taken: dict[str, str] = {}
    for interface in patient.interfaces:
        if interface.name == SERVICE_DEVICE:
            bound = (str(address) for address, _ in interface.addresses)
            taken |= {address: f"is bound to {SERVICE_DEVICE}" for address in bound if address in theirs}
    for text in patient.rules.values():
        for rule in map(_EXTERNAL.match, text.splitlines() if not isinstance(text, HostError) else ()):
            if rule and (address := str(ip_address(rule["address"]))) in theirs:
                taken.setdefault(address, f"has rules for {printable(rule['port'])}")
    for address, how in sorted(taken.items()):
        yield Finding(Level.WARN, TOPIC, f"{address}, {theirs[address]}, {how}", _REMEDY)
    if not taken:
        yield Finding(Level.OK, TOPIC, "no rule for a Service redirects a gateway of this node or a metadata server")
