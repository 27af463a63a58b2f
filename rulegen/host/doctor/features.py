"""Kernel features: tests each kind of rule that rulegen writes in a temporary network namespace."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.namespace import in_throwaway_namespace
from rulegen.host.commands.runner import MissingToolError
from rulegen.host.doctor.findings import Finding, Level
from rulegen.host.netfilter import nfacct
from rulegen.host.netfilter.iptables import RestoreError, restore
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.host.commands.runner import Command, Completed, Runner
    from rulegen.host.doctor.patient import HostProbe

SAMPLES: Final[Mapping[str, str]] = {
    "comment": "*nat\n-A POSTROUTING -m comment --comment x\nCOMMIT\n",
    "statistic": "*nat\n-A OUTPUT -m statistic --mode random --probability 0.33333333349 -j ACCEPT\nCOMMIT\n",
    "recent": "*nat\n-A OUTPUT -m recent --rcheck --seconds 10 --reap --name X --rsource -j ACCEPT\nCOMMIT\n",
    "addrtype": "*nat\n-A PREROUTING -m addrtype --dst-type LOCAL -j ACCEPT\nCOMMIT\n",
    "conntrack": "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
    "mark": "*nat\n-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\nCOMMIT\n",
    "MARK": "*nat\n-A OUTPUT -j MARK --set-xmark 0x4000/0x4000\nCOMMIT\n",
    "DNAT": "*nat\n-A OUTPUT -p tcp -m tcp --dport 1 -j DNAT --to-destination {address}:1\nCOMMIT\n",
    "udp": "*nat\n-A OUTPUT -p udp -m udp --dport 1 -j ACCEPT\nCOMMIT\n",
    "sctp": "*nat\n-A OUTPUT -p sctp -m sctp --dport 1 -j ACCEPT\nCOMMIT\n",
    "MASQUERADE": "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n",
    "MASQUERADE --random-fully": "*nat\n-A POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n",
    "REJECT": "*filter\n-A FORWARD -j REJECT\nCOMMIT\n",
    "nfacct": "*filter\n-A FORWARD -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP\nCOMMIT\n",
}
"""One rule for each match and target that rulegen uses, with the chain."""

_ADDRESS: Final = {Family.IPV4: "192.0.2.1", Family.IPV6: "[2001:db8::1]"}
_OLDEST_LINUX: Final = (5, 13)
"""The oldest Linux for the nftables mode, as for kube-proxy's."""
_OPTIONAL: Final = frozenset({"nfacct", "sctp", "MASQUERADE --random-fully"})


def check_features(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about all kinds of rules, in each installed variant."""
    topic = "kernel"
    release = os.uname().release
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if patient.options.needs.uses_nft:
        yield (
            Finding(Level.OK, topic, f"Linux {release} is new enough for the nftables mode")
            if numbers >= _OLDEST_LINUX
            else Finding(
                Level.FAIL, topic, f"Linux {release} is too old for the nftables mode", "use Linux 5.13 or newer"
            )
        )
    try:
        refusals = in_throwaway_namespace(lambda: _try_all(patient.run))
    except HostError as error:
        yield Finding(Level.INFO, topic, f"rules could not be tested: {error.message}", error.hint)
        return
    for (variant, family), refused in refusals.items():
        name = f"iptables-{variant} {family}"
        if set(refused) == set(SAMPLES):
            level = Level.FAIL if patient.forced is variant else Level.WARN
            yield Finding(level, topic, f"{name} accepts no rule at all: {next(iter(refused.values()))}")
            continue
        for sample, reason in refused.items():
            level = Level.WARN if sample in _OPTIONAL else Level.FAIL
            yield Finding(level, topic, f"{name} rejects rules with {sample}: {reason}", _remedy(sample))
        if not refused:
            yield Finding(Level.OK, topic, f"{name} accepts every kind of rule that rulegen uses")


def _try_all(run: Runner) -> dict[tuple[Variant, Family], dict[str, str]]:
    """Return the rejected samples with the reason, for each installed variant and family."""
    refusals: dict[tuple[Variant, Family], dict[str, str]] = {}
    has_counters = bool(nfacct.supported())
    if has_counters:
        nfacct.ensure()
    with tempfile.TemporaryDirectory(prefix="rulegen-doctor-") as folder:

        def apart(command: Command) -> Completed:
            """Use a lock file of our own, so that writers of the host's rules do not wait."""
            lock = {"XTABLES_LOCKFILE": str(Path(folder) / "lock")}
            return run(replace(command, environment={**command.environment, **lock}))

        for variant in Variant:
            for family in Family:
                try:
                    refusals[variant, family] = _refused(apart, variant, family, has_counters=has_counters)
                except MissingToolError:
                    continue
    return refusals


def _refused(run: Runner, variant: Variant, family: Family, *, has_counters: bool) -> dict[str, str]:
    """Return the rejected samples. All are tested in one call first, which is enough on most hosts.

    Raises:
        MissingToolError: The variant is not installed.
    """
    scripts = {name: text.replace("{address}", _ADDRESS[family]) for name, text in SAMPLES.items()}
    refused: dict[str, str] = {}
    if not has_counters:
        del scripts["nfacct"]
        refused["nfacct"] = "the kernel has no nfacct counters"
    try:
        restore(run, variant, family, "".join(scripts.values()))
    except MissingToolError:
        raise
    except HostError:
        for name, text in scripts.items():
            try:
                restore(run, variant, family, text)
            except HostError as error:
                refused[name] = error.complaint if isinstance(error, RestoreError) else error.message
    return refused


def _remedy(sample: str) -> str:
    match sample:
        case "nfacct":
            return "load nfnetlink_acct and xt_nfacct, or use --nfacct off"
        case "sctp":
            return "load xt_sctp, if a Service uses SCTP"
        case "MASQUERADE --random-fully":
            return "use iptables 1.6.2 and Linux 3.13, or newer"
        case _:
            word = sample.partition(" ")[0]
            return f"load the module xt_{word}{f' or ipt_{word}' if word.isupper() else ''}: see {_modules()}"


def _modules() -> str:
    return f"/lib/modules/{os.uname().release}"
