"""Rights of this process, and installed tools."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, MissingToolError, package_of
from rulegen.host.doctor.findings import Finding, Level
from rulegen.host.doctor.tool import Tool
from rulegen.host.netfilter.variant import NoVariantError, choose, missing_tool, variant_of
from rulegen.host.node.facts import speaks_ipv6
from rulegen.model.host.document import knows_random_fully
from rulegen.net import Family
from rulegen.safe_files import read_kernel_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.doctor.patient import HostProbe

_CAPABILITIES: Final = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW", 21: "CAP_SYS_ADMIN"}
_VERSION: Final = re.compile(r"v?(?P<version>[0-9]+(\.[0-9]+)+|(?<=version )[0-9]+)")


TOOLS: Final = (
    Tool("iptables-nft", "--version", "rules of the nft variant", Level.INFO),
    Tool("ip6tables-nft", "--version", "the same for IPv6", Level.INFO),
    Tool("iptables-legacy", "--version", "rules of the legacy variant", Level.INFO),
    Tool("ip6tables-legacy", "--version", "the same for IPv6", Level.INFO),
    Tool("conntrack", "--version", "deleting stale UDP connections", Level.WARN),
    Tool("nft", "--version", "reading nftables rules", Level.INFO),
    Tool("ipset", "--version", "sets of the IPVS mode", Level.INFO),
    Tool("ipvsadm", "--version", "reading IPVS virtual servers", Level.INFO),
    Tool("modprobe", "--version", "loading kernel modules", Level.INFO),
)
NFT: Final = Tool("nft", "--version", "the tables of the nftables mode", Level.FAIL)
_OLDEST_NFT, _SOUND_NFT = (1, 0, 1), (1, 0, 6)
PROXY: Final = Tool("haproxy", "-v", "the proxy of the userspace mode", Level.FAIL)


def check_privileges(_patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about missing rights."""
    status = read_kernel_text("/proc/thread-self/status")
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    missing = [name for bit, name in _CAPABILITIES.items() if not effective >> bit & 1]
    if "CAP_NET_ADMIN" in missing:
        yield Finding(
            Level.WARN,
            "privileges",
            f"user {os.geteuid()} without CAP_NET_ADMIN: rules can be neither read nor written, so many checks are"
            " incomplete",
            "run as root, or with CAP_NET_ADMIN",
        )
    elif missing:
        yield Finding(Level.INFO, "privileges", f"user {os.geteuid()}, without {' and '.join(missing)}")
    else:
        yield Finding(Level.OK, "privileges", f"user {os.geteuid()} may change the network")


def check_tools(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about installed and missing tools, with their versions."""
    needs = patient.options.needs
    needed = (*((PROXY,) if needs.has_proxy else ()), *((NFT,) if needs.uses_nft else ()))
    others = (tool for tool in (*TOOLS, *patient.engine_tools) if tool.name not in {each.name for each in needed})
    for tool in (*needed, *others):
        try:
            ended = patient.run(Command((tool.name, tool.question), timeout_s=10.0))
        except MissingToolError:
            plain = tool.name.removesuffix("-nft").removesuffix("-legacy")
            if plain != tool.name and _plain_is(patient, plain, tool.name):
                yield Finding(Level.OK, "tools", f"{tool.name}: as {plain}")
                continue
            hint = f"install the package {package_of(tool.name)}" if tool.missing is not Level.INFO else ""
            yield Finding(tool.missing, "tools", f"{tool.name} is not installed ({tool.purpose})", hint)
            continue
        said = ended.stdout or ended.stderr  # nginx prints its version on stderr
        match = _VERSION.search(said) if ended.code == 0 else None  # ipvsadm prints nothing without ip_vs
        version = match["version"] if match else "version unknown"
        if "tables" in tool.name and knows_random_fully(said) is False:
            yield Finding(
                Level.WARN,
                "tools",
                f"{tool.name} {version} does not support --random-fully: source ports of masqueraded packets can"
                " collide",
                "use iptables 1.6.2 or newer",
            )
        elif tool is NFT and (fault := _nft_fault(version)) is not None:
            yield fault
        else:
            yield Finding(Level.OK, "tools", f"{tool.name} {version}")


def _nft_fault(version: str) -> Finding | None:
    """Return what is wrong with a version of nft; None if nothing is, or if it is unknown."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if numbers and numbers < _OLDEST_NFT:
        return Finding(
            Level.FAIL, "tools", f"nft {version} is too old for the nftables mode", "install nft 1.0.6 or newer"
        )
    if numbers and numbers < _SOUND_NFT:
        return Finding(
            Level.WARN,
            "tools",
            f"nft {version} crashes on sets that nft 1.1.2 or newer has written",
            "install nft 1.0.6 or newer",
        )
    return None


def check_variant(patient: HostProbe) -> Iterator[Finding]:
    """Yield the iptables variant of this host, with the reason."""
    try:
        choice = choose(patient.run, patient.forced)
    except HostError as error:
        level = Level.FAIL if isinstance(error, MissingToolError | NoVariantError) or not error.hint else Level.WARN
        yield Finding(level, "variant", f"cannot choose an iptables variant: {error.message}", error.hint)
        return
    yield Finding(Level.OK, "variant", f"iptables-{choice.variant}: {choice.reason}")
    missing = missing_tool(patient.run, choice.variant, Family.IPV6) if speaks_ipv6() else None
    if missing is not None:
        yield Finding(
            Level.FAIL,
            "variant",
            f"{missing.message}, and this host has IPv6: plan, apply and cleanup fail",
            missing.hint,
        )


def _plain_is(patient: HostProbe, plain: str, wanted: str) -> bool:
    """Whether the tool without a variant in its name is of the given variant."""
    try:
        version = patient.run(Command((plain, "--version"), timeout_s=10.0)).stdout
    except MissingToolError:
        return False
    return wanted.endswith(f"-{variant_of(version)}")
