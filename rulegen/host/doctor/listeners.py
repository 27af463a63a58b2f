"""Conflicting programs: another proxy, a port in use, and a range of local ports that overlaps node ports."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.host.doctor.findings import Finding, Level
from rulegen.safe_files import read_kernel_text
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.doctor.patient import HostProbe

HEALTH_PORT: Final = 10256
METRICS_PORT: Final = 10249

_PORTS: Final = {HEALTH_PORT: "health checks of load balancers", METRICS_PORT: "metrics"}
_LISTENING: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(?P<inode>[0-9]+)\]")
_SHOWN: Final = 5


def check_ports(patient: HostProbe) -> Iterator[Finding]:
    """Yield findings about programs that listen on ports of rulegen or on node ports."""
    listening = _listening()
    first, last = patient.node_ports
    interesting = {port: inode for port, inode in listening.items() if port in _PORTS or first <= port <= last}
    owners = _owners(set(interesting.values())) if interesting else {}
    for port, purpose in _PORTS.items():
        if port in interesting:
            who = owners.get(interesting[port], "another process")
            yield Finding(Level.WARN, "ports", f"port {port} ({purpose}) is taken by {who}")
        else:
            yield Finding(Level.OK, "ports", f"port {port} ({purpose}) is free")
    taken = sorted(port for port in interesting if port not in _PORTS)
    for port in taken[:_SHOWN]:
        who = owners.get(interesting[port], "a process")
        yield Finding(
            Level.WARN, "ports", f"{who} listens on {port}: a Service with that node port would get its packets"
        )
    if taken[_SHOWN:]:
        yield Finding(Level.WARN, "ports", f"{len(taken) - _SHOWN} more node ports are used by other programs")
    yield from _local_ports(patient)


def check_other_proxies(_patient: HostProbe) -> Iterator[Finding]:
    """Yield a finding if kube-proxy runs here: it and rulegen would undo each other's changes."""
    running = [pid for pid in _processes() if _name(pid) == "kube-proxy"]
    if running:
        pids = ", ".join(map(str, running))
        yield Finding(
            Level.WARN,
            "proxies",
            f"kube-proxy runs here (process {pids}): it and rulegen write the same chains",
            "stop it before `rulegen apply`; `rulegen plan` can be used meanwhile",
        )
    else:
        yield Finding(Level.OK, "proxies", "no kube-proxy process was found")


def _local_ports(patient: HostProbe) -> Iterator[Finding]:
    words = patient.sysctls.get("net.ipv4.ip_local_port_range", "").split()
    first, last = patient.node_ports
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return
    low, high = map(int, words)
    reserved = patient.sysctls.get("net.ipv4.ip_local_reserved_ports", "")
    overlap = (max(low, first), min(high, last))
    if overlap[0] > overlap[1] or _covers(reserved, overlap):
        yield Finding(
            Level.OK,
            "ports",
            f"local ports of outgoing connections ({low}-{high}) do not overlap node ports ({first}-{last})",
        )
        return
    yield Finding(
        Level.WARN,
        "ports",
        f"outgoing connections may use the local ports {overlap[0]}-{overlap[1]}, which are node ports: their"
        " replies may be lost",
        f"narrow net.ipv4.ip_local_port_range, or reserve them: net.ipv4.ip_local_reserved_ports = {first}-{last}",
    )


def _covers(reserved: str, overlap: tuple[int, int]) -> bool:
    """Whether one range of `30000-32767,40000` holds all of the overlap."""
    for part in reserved.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdigit() and (high or low).isdigit() and int(low) <= overlap[0] and overlap[1] <= int(high or low):
            return True
    return False


def _listening() -> dict[int, str]:
    """Return the TCP ports with a listener in this network namespace, each with the inode of one socket."""
    sockets: dict[int, str] = {}
    for name in ("tcp", "tcp6"):
        path = Path("/proc/thread-self/net") / name
        if not path.exists():
            continue
        for line in read_kernel_text(path).splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING:
                sockets.setdefault(int(fields[1].rpartition(":")[2], 16), fields[9])
    return sockets


def _owners(inodes: set[str]) -> dict[str, str]:
    """Return the processes that have these sockets, by inode; only those that this user may inspect."""
    owners: dict[str, str] = {}
    for pid in _processes():
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                target = _SOCKET.match(str(entry.readlink()))
                if target and target["inode"] in inodes:
                    owners.setdefault(target["inode"], f"{_name(pid)} (process {pid})")
        except OSError:
            continue  # the process has ended, or belongs to another user
    return owners


def _processes() -> list[int]:
    return sorted(int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _name(pid: int) -> str:
    try:
        text = read_kernel_text(f"/proc/{pid}/comm").strip()
    except OSError:
        return ""
    return printable(text)
