"""python-iptables: a second opinion on sample rules, and the counters of a live legacy chain.

It is optional, slow to load, and drives C libraries that may crash, so it runs in a process of its own: `python -m
rulegen.host.doctor.bindings`, which prints one JSON document. It supports the legacy variant only. Its `easy.test_rule`
returns True for any rule, because it ignores parts that it does not understand. So each rule is built and read back
here; a missing part was rejected.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import HostError
from rulegen.host.commands.namespace import in_throwaway_namespace
from rulegen.host.commands.runner import Command
from rulegen.host.doctor.findings import Finding, Level
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.commands.runner import Runner
    from rulegen.host.doctor.patient import HostProbe

CHAIN: Final = "KUBE-POSTROUTING"
"""The chain whose counters are shown: it has few rules, and all packets pass it."""

SAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {"statistic": {"mode": "random", "probability": "0.5"}, "target": "ACCEPT"},
    {"recent": {"name": "X", "rcheck": "", "seconds": "10", "reap": ""}, "target": "ACCEPT"},
    {"protocol": "tcp", "recent": {"name": "X", "set": ""}, "target": {"DNAT": {"to-destination": "192.0.2.1:1"}}},
    {"addrtype": {"dst-type": "LOCAL"}, "target": "ACCEPT"},
    {"conntrack": {"ctstate": "NEW"}, "target": {"REJECT": {}}},
    {"mark": {"mark": "0x4000/0x4000"}, "target": {"MASQUERADE": {"random-fully": ""}}},
    {"nfacct": {"nfacct-name": "x"}, "target": "DROP"},
    {
        "protocol": "udp",
        "udp": {"dport": "53"},
        "comment": {"comment": "x"},
        "target": {"MARK": {"set-xmark": "0x1/0x1"}},
    },
)
"""Samples of the rules that rulegen writes, in the format of `iptc.easy`."""

_TOPIC: Final = "python-iptables"
_TIMEOUT_S: Final = 20.0


def check_bindings(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about sample rules in python-iptables, and the counters of a live legacy chain."""
    if find_spec("iptc") is None:
        yield Finding(Level.INFO, _TOPIC, "not installed; it is optional (pip install 'rulegen[iptc]')")
        return
    try:
        # a test of rules loads all legacy tables, which stay loaded: not in the namespace of the host
        refused = in_throwaway_namespace(lambda: _ask(patient.run, "samples"))["refused"]
    except HostError as error:
        yield Finding(Level.INFO, _TOPIC, f"cannot test rules: {error.message}", error.hint)
    else:
        yield _judged(refused, _version(patient.run))
    yield from _counters(patient)


def _judged(lost: list[str], version: str) -> Finding:
    """Return the findings about samples; a missing part concerns python-iptables, not the host.

    It has a copy of the C structures of one release of libxtables, and misreads those of others. Whether the kernel
    accepts such rules is tested with the tools themselves (topic `kernel`).
    """
    if not lost:
        return Finding(Level.OK, _TOPIC, f"accepts all {len(SAMPLES)} sample rules")
    return Finding(
        Level.INFO,
        _TOPIC,
        f"this python-iptables does not support iptables {version}: it loses {', '.join(lost)}",
        "ignore this; the checks of the kernel use iptables itself",
    )


def _version(run: Runner) -> str:
    """Return the version of the legacy tool, whose libraries python-iptables loads."""
    try:
        said = run(Command(("iptables-legacy", "--version"), timeout_s=10.0)).stdout
    except HostError:
        return "of this host"
    version = re.search(r"v([0-9.]+)", said)
    return version[1] if version else "of this host"


def _counters(patient: HostProbe) -> Iterator[Finding]:
    try:
        tables = read_kernel_text("/proc/thread-self/net/ip_tables_names").split()
    except FileNotFoundError:
        tables = []
    except OSError as error:
        yield Finding(Level.INFO, _TOPIC, f"cannot find out whether legacy tables are in use: {error.strerror}")
        return
    if "nat" not in tables:  # a request would load the table
        yield Finding(Level.INFO, _TOPIC, "the legacy table nat is not in use, so there are no counters")
        return
    try:
        answer = _ask(patient.run, "counters")
    except HostError as error:
        yield Finding(Level.INFO, _TOPIC, f"counters of chain {CHAIN} cannot be read: {error.message}", error.hint)
        return
    rules = answer["counters"]
    if rules is None:
        yield Finding(Level.INFO, _TOPIC, f"there is no legacy chain {CHAIN}, so there are no counters")
        return
    counted = ", ".join(str(packets) for packets, _ in rules) or "it is empty"
    yield Finding(Level.INFO, _TOPIC, f"legacy chain {CHAIN}, packets that matched its rules: {counted}")


def _ask(run: Runner, question: str) -> Any:
    """Return the answer of the separate process.

    Raises:
        HostError: The process failed or crashed.
    """
    ended = run(Command((sys.executable, "-m", __name__, question), timeout_s=_TIMEOUT_S))
    try:
        return json.loads(ended.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        how = f"killed by signal {-ended.code}" if ended.code < 0 else ended.complaint.rpartition("; ")[2]
        raise HostError(f"python-iptables failed: {how}") from None


def _lost(easy: Any, sample: dict[str, Any]) -> list[str]:
    """Return the parts of a sample that are missing after it was built and read back."""
    back = easy.decode_iptc_rule(easy.encode_iptc_rule(dict(sample)))
    lost: list[str] = []
    for name, value in sample.items():
        if isinstance(value, dict):
            inner, wanted = (back.get(name), value) if name != "target" else (back.get("target"), value)
            if not isinstance(inner, dict):
                inner = {inner: {}} if isinstance(inner, str) else {}
            lost += [f"{name} {key}" for key in wanted if key not in inner]
        elif back.get(name) != value:
            lost.append(f"{name} {value}")
    return lost


def _main(question: str) -> None:
    """Answer one question as the process that `_ask` starts."""
    import iptc  # noqa: PLC0415 - optional, and only this process may load it

    if question == "samples":
        refused = [part for sample in SAMPLES for part in _lost(iptc.easy, sample)]
        sys.stdout.write(json.dumps({"refused": refused}) + "\n")
        return
    table = iptc.Table(iptc.Table.NAT)
    table.refresh()
    counters = [rule.get_counters() for rule in iptc.Chain(table, CHAIN).rules] if table.is_chain(CHAIN) else None
    sys.stdout.write(json.dumps({"counters": counters}) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
