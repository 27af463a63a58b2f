"""The option for each field of the configuration, so that an error names what was typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND_LINE: Final = "command line"
"""The source of values that options have set, in messages."""
OPTION_OF: Final[Mapping[str, str]] = {
    "mode": "--mode",
    "hostnameOverride": "--node",
    "bindAddress": "--bind-address",
    "clusterCIDR": "--cluster-cidr",
    "healthzBindAddress": "--health-address",
    "metricsBindAddress": "--metrics-address",
    "detectLocalMode": "--detect-local-mode",
    "nodePortAddresses": "--nodeport-addresses",
    "detectLocal.bridgeInterface": "--pod-bridge-interface",
    "detectLocal.interfaceNamePrefix": "--pod-interface-name-prefix",
    "iptables.masqueradeBit": "--iptables-masquerade-bit",
    "nftables.masqueradeBit": "--iptables-masquerade-bit",
    "ipvs.scheduler": "--ipvs-scheduler",
    "ipvs.excludeCIDRs": "--ipvs-exclude-cidrs",
    "ipvs.tcpTimeout": "--ipvs-tcp-timeout",
    "ipvs.tcpFinTimeout": "--ipvs-tcpfin-timeout",
    "ipvs.udpTimeout": "--ipvs-udp-timeout",
}
"""The options by path of their field."""
_FIELD: Final = re.compile(rf"\b{COMMAND_LINE}: ([A-Za-z.]+)(?:\[\d+\])?: ")


def by_option(message: str) -> str:
    """Return a message about values of options, with the option instead of the field."""
    return _FIELD.sub(lambda match: f"{OPTION_OF[match[1]]}: " if match[1] in OPTION_OF else match[0], message)
