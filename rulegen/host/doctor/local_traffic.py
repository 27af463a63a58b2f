"""Whether the configuration, and the present rules, can recognise the traffic of local Pods."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.doctor.findings import Finding, Level
from rulegen.model.services.options import DetectLocalMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.doctor.patient import HostProbe
    from rulegen.model.services.options import Options

TOPIC: Final = "local traffic"
FOLLOWS: Final = "connections to ClusterIPs are not masqueraded, so clients that are not Pods may get no answer"
REMEDY: Final = (
    "give plan, apply and run kube-proxy's configuration (--config FILE) or --cluster-cidr; README.md explains how"
    " to get it"
)
_TO_CLUSTER_IP: Final = re.compile(r"-A KUBE-(SVC|SVL)-|-A KUBE-SERVICES .*--match-set (6-)?KUBE-CLUSTER-IP ")
_MARKS: Final = re.compile(
    r"-A KUBE-(SVC|SVL)-\S+ .*-j KUBE-MARK-MASQ$"
    r"|-A KUBE-SERVICES .*--match-set (6-)?KUBE-CLUSTER-IP dst,dst .*-j KUBE-MARK-MASQ$"
)


def check_local_traffic(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings: whether plan, apply and run would recognise traffic of Pods, and whether present rules do."""
    yield _configured(patient.options)
    for (variant, family), text in patient.rules.items():
        if isinstance(text, HostError):
            continue  # reported by the checks of rules
        lines = text.splitlines()
        if not any(map(_TO_CLUSTER_IP.match, lines)):
            continue
        name = f"iptables-{variant}, {family}"
        if any(map(_MARKS.match, lines)):
            yield Finding(Level.OK, TOPIC, f"{name}: rules masquerade connections to ClusterIPs")
        else:
            yield Finding(
                Level.WARN,
                TOPIC,
                f"{name}: the program that wrote these rules could not recognise local traffic: {FOLLOWS}",
                REMEDY,
            )


def _configured(options: Options) -> Finding:
    """Return the finding about the options that doctor got."""
    match options.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR if not options.cluster_cidrs:
            return Finding(
                Level.WARN,
                TOPIC,
                "no clusterCIDR is given: without it, plan, apply and run cannot recognise local traffic, and"
                f" {FOLLOWS}",
                REMEDY,
            )
        case DetectLocalMode.CLUSTER_CIDR:
            source = f"clusterCIDR {', '.join(map(str, options.cluster_cidrs))}"
        case DetectLocalMode.NODE_CIDR:
            source = "podCIDRs of the Node object"
        case DetectLocalMode.BRIDGE_INTERFACE:
            source = f"bridge {options.bridge_interface}"
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            source = f"interfaces {options.interface_name_prefix}…"
    return Finding(Level.OK, TOPIC, f"recognised by {source}")
