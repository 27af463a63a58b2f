"""Three hosts and the cables between them: a client, the node, and behind it every address that a pod may have.

client 192.168.50.100 ─── 192.168.50.10 node 172.31.0.1 ─── 172.31.0.2 pods: 10.244.0.0/14, 10.96.0.0/12
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from integration.lab.lab import ROOT, Unavailable
from integration.lab.peers import PeerHost, Wire

HOSTS = ("node", "client", "pods")
NODE, CLIENT = "192.168.50.10", "192.168.50.100"
NAME_SERVER = "10.96.0.10"
_PEER = ROOT / "integration" / "lab" / "peer"
_INIT = Path(__file__).parent / "programs" / "init.py"
_START_S = 60

_CABLES = """
link add uplink netns {client} type veth peer name eth0 netns {node}
link add uplink netns {pods} type veth peer name pods netns {node}
"""
_NODE = f"""
link set lo up
addr add {NODE}/24 dev eth0
addr add 172.31.0.1/30 dev pods
link set eth0 up
link set pods up
route add default via 172.31.0.2
"""
_CLIENT = f"""
link set lo up
addr add {CLIENT}/24 dev uplink
link set uplink up
route add default via {NODE}
"""
# Every address of these networks is this host's own, without being listed.
_PODS = """
link set lo up
addr add 172.31.0.2/30 dev uplink
link set uplink up
route add local 10.244.0.0/14 dev lo
route add local 10.96.0.0/12 dev lo
route add default via 172.31.0.1
"""


def check_machine() -> None:
    """Raise Unavailable where this machine cannot make such hosts."""
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    missing = [tool for tool in ("unshare", "nsenter", "ip", "mount", "nginx") if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")


def start(folder: Path, stack: ExitStack) -> dict[str, PeerHost]:
    """Start the hosts and lay the cables; all ends with the stack, or with this process."""
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": sys.pycache_prefix or str(folder / "bytecode"),
        "NO_COLOR": "1",
    }
    (folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    path = folder / "peers.sock"
    python = [sys.executable, "-S", "-E"]
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(len(HOSTS))
        door.settimeout(_START_S)
        for name in HOSTS:
            spaces = ["--net"]
            init = []
            if name == "node":
                spaces += ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
                init = [*python, str(_INIT), str(folder / "resolv.conf")]
            argv = ["unshare", *spaces, "--", *init, *python, str(_PEER), name, str(path)]
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=env, start_new_session=True)
            stack.callback(_see_off, process)
        wires = {wire.name: wire for wire in (_report(door, stack) for _ in HOSTS)}
    _lay({name: wire.pid for name, wire in wires.items()})
    return {name: PeerHost(name, wires[name], ()) for name in HOSTS}


def _report(door: socket.socket, stack: ExitStack) -> Wire:
    connection, _ = door.accept()
    connection.settimeout(_START_S)
    wire = Wire(connection)
    stack.callback(wire.close)
    return wire


def _see_off(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process whose wire is closed."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _lay(pids: dict[str, int]) -> None:
    subprocess.run(["ip", "-batch", "-"], input=_CABLES.format(**pids), text=True, check=True)
    for name, text in (("node", _NODE), ("client", _CLIENT), ("pods", _PODS)):
        inside = ["nsenter", f"--net=/proc/{pids[name]}/ns/net"]
        subprocess.run([*inside, "ip", "-batch", "-"], input=text, text=True, check=True)
    forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
    subprocess.run(["nsenter", f"--net=/proc/{pids['node']}/ns/net", "sh", "-c", forward], check=True)
