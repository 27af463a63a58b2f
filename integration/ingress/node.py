"""rulegen on the lab's node, as a program with arguments and an exit code, and the folder that its engine lives in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from integration.ingress import objects
from integration.ingress.objects import Document
from integration.lab.hosts import Completed, Running
from integration.lab.peers import PeerHost

Verb = Literal["apply", "plan", "export", "cleanup"]
Flags = Mapping[str, str | bool]


class Node:
    """Runs rulegen on the node.

    Attributes:
        folder: Where its engine lives, as the node sees it.
        engine: The engine that serves Ingresses.
        services: Whether rulegen programs the node's rules for Services too.
    """

    def __init__(
        self, host: PeerHost, folder: Path, objects_file: Path, *, services: bool = False, engine: str = "nginx"
    ) -> None:
        self.host = host
        self.folder = folder
        self.services = services
        self.engine = engine
        self._objects = objects_file
        self._flags: list[str] = []

    def argv(self, verb: Verb, *more: str) -> list[str]:
        """Return the command line of a verb on the objects last written: the one place that knows its form."""
        command = [sys.executable, "-W", "error", "-m", "rulegen", verb]
        given = list(more)
        if verb == "cleanup":
            services = [] if self.services else ["--no-services"]
            return [*command, *self._engine, *services, "-y", "-v", *given]
        given += ["-f", str(self._objects), *self._flags]
        if verb == "export":
            return [*command, *given]
        given += ["-v", *self._engine]
        given += ["--node", "node"] if self.services else ["--no-services"]
        given += ["--allow-unknown-node"] if self.services and verb == "apply" else []
        return [*command, *given, *(["-y", "--allow-empty"] if verb == "apply" else [])]

    @property
    def _engine(self) -> list[str]:
        return ["--ingress", "--ingress-engine", self.engine, f"--{self.engine}-dir", str(self.folder)]

    def write(self, documents: Iterable[Document], flags: Flags | None = None) -> None:
        """Write the objects, and note the flags, that the next commands are about."""
        documents = list(documents)
        self._objects.write_text(objects.write(documents))
        has_settings = any(objects.is_controller_config(document) for document in documents)
        self._flags = ["--configmap", objects.CONTROLLER_CONFIG] if has_settings else []
        for name, value in (flags or {}).items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            self._flags += [f"--{name}"] if value is True else [f"--{name}={text}"]

    def start(self, verb: Verb, *more: str) -> Running:
        """Start a command on the objects last written."""
        return self.host.popen(self.argv(verb, *more))

    def run(self, verb: Verb, *more: str, timeout_s: float = 60) -> Completed:
        """Run a command on the objects last written, in a fork, where all is imported already.

        Its exit code is the caller's to judge. `start` begins a whole interpreter.
        """
        return self.host.fork(self.argv(verb, *more)).wait(timeout_s)

    def apply(self, documents: Iterable[Document], flags: Flags | None = None) -> Completed:
        """Make the node serve objects; it must succeed."""
        self.write(documents, flags)
        return self.run("apply").check()

    def end(self) -> None:
        """Take the engine away, if it was ever there, and what rules there are for Services."""
        if not self.outside().exists():
            return
        self.run("cleanup").check()
        assert self.processes(f"{self.folder}/current") == [], self.host.run(["ps", "-ww", "-ef"]).stdout

    def planned(self) -> dict[str, Any]:
        """Return what `plan` says of the objects last written."""
        done = self.run("plan", "-o", "json")
        assert done.code in {0, 2}, f"plan: exit {done.code}\n{done.stdout}{done.stderr}"
        results: dict[str, Any] = json.loads(done.stdout)
        return results

    def is_converged(self) -> bool:
        """Tell whether a plan on the objects last written is empty."""
        done = self.run("plan", "--detailed-exitcode")
        assert done.code in {0, 2}, f"plan: exit {done.code}\n{done.stdout}{done.stderr}"
        return done.code == 0

    def outside(self, path: Path | None = None) -> Path:
        """Return a path of the node's own mounts as this machine sees it; by default the folder of its engine."""
        return Path(f"/proc/{self.host.wire.pid}/root{path or self.folder}")

    def rendered(self) -> dict[str, str]:
        """Return the text of the live configuration by path, without its secrets."""
        current = self.outside() / "current"
        if not current.exists():
            return {}
        return {
            str(path.relative_to(current)): path.read_text(errors="replace") for path in sorted(current.rglob("*.conf"))
        }

    def processes(self, pattern: str) -> list[int]:
        """Return the process ids, as the node has them, of programs whose command line has a text in it."""
        lines = self.host.run(["ps", "-ww", "-eo", "pid=,args="]).stdout.splitlines()
        results = (line.strip().partition(" ") for line in lines)
        return [int(pid) for pid, _, args in results if pattern in args]

    def masters(self) -> list[int]:
        """Return the master processes of its nginx."""
        return self.processes("nginx: master process")

    def workers(self) -> list[int]:
        """Return the workers that take connections."""
        shutting_down = set(self.processes("nginx: worker process is shutting down"))
        return [pid for pid in self.processes("nginx: worker process") if pid not in shutting_down]

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """Send a signal to one process of the node."""
        self.host.run(["kill", f"-{signal}", str(pid)])

    def log(self) -> str:
        """Return what nginx has written to its error logs."""
        logs = self.outside() / "logs"
        return (
            "\n".join(path.read_text(errors="replace") for path in sorted(logs.glob("*err*"))) if logs.exists() else ""
        )
