"""The size and timeouts of conntrack: the same kernel parameters that kube-proxy sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.kube.proxyconfig.durations import seconds_of

if TYPE_CHECKING:
    from rulegen.kube.proxyconfig.configuration import Conntrack

CONNTRACK_MAX: Final = "net.netfilter.nf_conntrack_max"
HASH_SIZE: Final = "nf_conntrack/hashsize"
"""Number of hash buckets; a quarter of the entries is enough. A module parameter, not a sysctl of the namespace."""
MOST: Final = 1_048_576
"""Maximum of the entries computed from the number of CPUs."""


class ConntrackLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of conntrack; 0 leaves a parameter unchanged.

    Attributes:
        per_core: Entries for each CPU.
        least: Minimum number of entries.
        established_s, close_wait_s, udp_s, udp_stream_s: Timeouts, in seconds.
        be_liberal: Whether packets out of the TCP window are valid (tcpBeLiberal).
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
        """Return the limits of a validated configuration, with kube-proxy's defaults."""
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
    """Return the kernel parameters to set, each with its value.

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
