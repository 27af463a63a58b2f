"""Connection tracking, as wide and as patient as Services need it: the parameters that kube-proxy sets, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.kube.proxyconfig.durations import seconds_of

if TYPE_CHECKING:
    from rulegen.kube.proxyconfig.configuration import Conntrack

CONNTRACK_MAX: Final = "net.netfilter.nf_conntrack_max"
HASH_SIZE: Final = "nf_conntrack/hashsize"
"""Parameter of the module, not of the namespace: how many buckets the table has; a fourth of its entries will do."""
MOST: Final = 1_048_576
"""Entries that are asked for at most, however many CPUs there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConntrackLimits:
    """What a configuration says of connection tracking; 0 leaves a parameter as it is.

    Attributes:
        per_core: Entries for each CPU.
        least: Entries at least.
        established_s, close_wait_s, udp_s, udp_stream_s: Timeouts, in seconds.
        be_liberal: Whether packets out of the window are valid.
    """

    per_core: int = 32_768
    least: int = 131_072
    established_s: int = 86_400
    close_wait_s: int = 3_600
    udp_s: int = 0
    udp_stream_s: int = 0
    be_liberal: bool = False

    @classmethod
    def of(cls, config: Conntrack) -> ConntrackLimits:
        """Return what a checked configuration says, with kube-proxy's defaults."""
        established, close_wait = config.tcp_established_timeout, config.tcp_close_wait_timeout
        return cls(
            per_core=32_768 if config.max_per_core is None else config.max_per_core,
            least=131_072 if config.min is None else config.min,
            established_s=86_400 if established is None else int(seconds_of(established, 0)),
            close_wait_s=3_600 if close_wait is None else int(seconds_of(close_wait, 0)),
            udp_s=int(seconds_of(config.udp_timeout, 0)),
            udp_stream_s=int(seconds_of(config.udp_stream_timeout, 0)),
            be_liberal=config.tcp_be_liberal,
        )


def conntrack_parameters(limits: ConntrackLimits, cpus: int) -> dict[str, str]:
    """Return the parameters that are to be set, each with its value.

    >>> conntrack_parameters(ConntrackLimits(close_wait_s=0), 8)  # doctest: +NORMALIZE_WHITESPACE
    {'net.netfilter.nf_conntrack_max': '262144',
     'net.netfilter.nf_conntrack_tcp_timeout_established': '86400'}
    """
    entries = max(min(limits.per_core * cpus, MOST), limits.least) if limits.per_core > 0 else 0
    wanted = {
        CONNTRACK_MAX: entries,
        "net.netfilter.nf_conntrack_tcp_timeout_established": limits.established_s,
        "net.netfilter.nf_conntrack_tcp_timeout_close_wait": limits.close_wait_s,
        "net.netfilter.nf_conntrack_udp_timeout": limits.udp_s,
        "net.netfilter.nf_conntrack_udp_timeout_stream": limits.udp_stream_s,
        "net.netfilter.nf_conntrack_tcp_be_liberal": int(limits.be_liberal),
    }
    return {name: str(value) for name, value in wanted.items() if value > 0}
