"""A node and its cluster for the commands of the documentation: run one page's commands in order, as a reader would.

Started by `test_docs_run.py` in its own namespaces: `python -m tests.project.docs.docs_session FOLDER < commands.json`.
It has the host name web-1 and the address 192.0.2.10, real iptables, IPVS where the kernel has it, a real nginx, and
an API server that really serves (`tests.servers.fakeapi`) what deploy/examples hold. `kubectl` and `ssh` are
stand-ins that answer from that server and from this host. A command that asks is answered with yes on a terminal. One
that goes on (`rulegen run`) is waited for until its health page says 200, and ended before the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.project.docs.docs_forks import Forks
from tests.project.places import ROOT
from tests.servers.fakeapi import FakeApi

EXAMPLES = ROOT / "deploy" / "examples"
TIME_S = 60.0
HEALTH_PORT = 10256
KINDS = {
    "Service": "services",
    "Node": "nodes",
    "Ingress": "ingresses",
    "IngressClass": "ingressclasses",
    "Namespace": "namespaces",
}


def documents(*folders: str) -> list[dict[str, Any]]:
    """Return the objects of some examples."""
    paths = sorted(path for folder in folders for path in (EXAMPLES / folder).glob("*.yaml"))
    return [entry for path in paths for entry in yaml.safe_load_all(path.read_text(encoding="utf-8")) if entry]


def slice_of(pods: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the EndpointSlice that a cluster makes of the example's Pods."""
    return {
        "metadata": {
            "name": "my-blog-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "my-blog"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [pod["status"]["podIP"]], "nodeName": "web-1", "conditions": {"ready": True}} for pod in pods
        ],
    }


def fill(api: FakeApi) -> None:
    """Have the API server hold a cluster with one node, one Service, and Ingresses of both classes."""
    objects = documents("my-blog", "my-blog-ingress-http")
    for entry in objects:
        if entry["kind"] in KINDS:
            api.put(KINDS[entry["kind"]], entry)
    api.put("endpointslices", slice_of([document for document in objects if document["kind"] == "Pod"]))
    rule = next(document for document in objects if document["kind"] == "Ingress")["spec"]["rules"][0]
    api.put(
        "ingresses",
        {
            "metadata": {"name": "old", "namespace": "default"},
            "spec": {
                "ingressClassName": "nginx",
                "rules": [{**rule, "host": "old.example.com"}],
            },
        },
    )
    api.put("ingressclasses", {"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}})
    api.put(
        "configmaps",
        {
            "metadata": {"namespace": "kube-system", "name": "kube-proxy"},
            "data": {"config.conf": (EXAMPLES / "config.yaml").read_text(encoding="utf-8")},
        },
        {"metadata": {"namespace": "ingress-nginx", "name": "ingress-nginx-controller"}, "data": {}},
    )


def lay_out(folder: Path) -> None:
    """Put the files beside the reader's shell that the pages speak of as the reader's own."""
    objects = documents("my-blog", "my-blog-ingress-http")
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    for name in ("shop", "base"):
        (folder / name).mkdir()
        (folder / name / "all.yaml").write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    (folder / "cluster.yaml").write_text(yaml.safe_dump(listed), encoding="utf-8")
    (folder / "cluster.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "kube-proxy.yaml").write_text((EXAMPLES / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "host.yaml").write_text((EXAMPLES / "host.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    config = Path("/etc/rulegen/config.yaml")
    config.write_text((EXAMPLES / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")


def program_node(folder: Path) -> None:
    """Have the node's kernel hold the rules for its Service, as kube-proxy leaves them, and save them as dumps."""
    apply = ["rulegen", "apply", "-f", "cluster.yaml", "--config", "kube-proxy.yaml", "--yes"]
    subprocess.run(apply, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "dumps").mkdir()
    node = folder / "nodes" / "web-1"
    node.mkdir(parents=True)
    for tool in ("iptables-save", "ip6tables-save"):
        saved = subprocess.run([tool], capture_output=True, text=True, check=True).stdout
        (folder / "dumps" / tool).write_text(saved, encoding="utf-8")
        (node / tool.replace("-", ".")).write_text(saved, encoding="utf-8")


def install_tools(folder: Path, api: FakeApi) -> Path:
    """Return a folder with rulegen and the stand-ins, to be first on PATH."""
    tools = folder / "tools"
    tools.mkdir()
    programs = {
        "rulegen": Forks(folder).script,
        "kubectl": f'#!/bin/sh\nexec "{sys.executable}" -m tests.project.docs.docs_kubectl "{api.url}" "$@"\n',
        "ssh": '#!/bin/sh\nshift\nexec "$@"\n',  # every host is this one
    }
    for name, text in programs.items():
        (tools / name).write_text(text, encoding="utf-8")
        (tools / name).chmod(0o755)
    return tools


def typed(command: str, folder: Path, answer: str) -> tuple[int, str]:
    """Run a command on a terminal; each question is answered. Returns its exit code and what it printed."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ["PAGER"] = "cat"  # nobody leaves a pager here
        os.execvp("bash", ["bash", "-c", command])
    shown = b""
    asked = 0
    with contextlib.suppress(OSError):  # the terminal ends with its last program
        while piece := os.read(terminal, 65536):
            shown += piece
            if shown.count(b"[y/N]") > asked:
                asked += 1
                os.write(terminal, answer.encode())
    _, status = os.waitpid(child, 0)
    os.close(terminal)  # not sooner: it hangs up on what still runs
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


def healthy() -> bool:
    """Whether the agent's health page says that the node is as the cluster wants it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH_PORT}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Session:
    """One reader's shell; at most one agent runs beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._agent: subprocess.Popen[str] | None = None

    def do(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed."""
        if command.startswith("rulegen run") and "--once" not in command:
            self.end_agent()
            return self._start_agent(command)
        if command.startswith("rulegen "):
            self.end_agent()
        return typed(command, self._folder, "y\n")

    def _start_agent(self, command: str) -> tuple[int, str]:
        log = self._folder / "agent.log"
        with log.open("w", encoding="utf-8") as output:
            argv = ["bash", "-c", f"exec {command}"]
            self._agent = subprocess.Popen(argv, cwd=self._folder, stdout=output, stderr=output, text=True)
        until = time.monotonic() + TIME_S
        while not healthy():
            if self._agent.poll() is not None or time.monotonic() > until:
                return self._agent.poll() or 1, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        return 0, log.read_text(encoding="utf-8")

    def end_agent(self) -> None:
        """End the agent, if one runs."""
        if self._agent is not None and self._agent.poll() is None:
            self._agent.send_signal(signal.SIGTERM)
            self._agent.wait(TIME_S)
        self._agent = None


def main(folder: Path) -> None:
    """Run the commands that standard input holds, and print what came of each as JSON, one a line."""
    commands: list[str] = json.load(sys.stdin)
    with FakeApi() as api:
        fill(api)
        lay_out(folder)
        home = folder / "home" / ".kube"
        home.mkdir(parents=True)
        Path(api.kubeconfig(home)).rename(home / "config")
        os.environ |= {
            "HOME": str(home.parent),
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
        }
        os.chdir(folder)
        os.environ["PATH"] = f"{install_tools(folder, api)}:{os.environ['PATH']}"
        program_node(folder)
        session = Session(folder)
        try:
            for command in commands:
                code, shown = session.do(command)
                print(json.dumps({"command": command, "code": code, "shown": shown[-4000:]}), flush=True)
        finally:
            session.end_agent()
            subprocess.run(["rulegen", "cleanup", "--ingress", "--no-services", "--yes"], check=False, cwd=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
