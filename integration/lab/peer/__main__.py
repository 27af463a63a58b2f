"""The process that stands for a host of the lab: its namespace lives as long as it does.

Started as `python peer NAME SOCKET`, it connects to the Unix socket SOCKET, says that it is there, and does what
arrives: one JSON object a line, answered by one JSON object a line, which names the number of the command. When the
socket closes, for whatever reason, it ends its children and itself; so nothing of a lab outlives the tests. Only the
standard library, so that it starts fast and runs wherever a Python is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import talk
from templates import Forked, Templates


class Peer:
    """What a host can be asked to do; each public method is one command of the wire."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._children: dict[int, tuple[subprocess.Popen[bytes] | Forked, Path]] = {}
        self._templates = Templates()
        self._repetitions: dict[int, talk.Repetition] = {}

    def listen(self, protocol: str, family: int, address: str, port: int) -> None:
        """Answer on a port with this host's name."""
        talk.listen(self._name, protocol, family, address, port)

    def ask(self, question: dict[str, object], count: int) -> list[dict[str, object]]:
        """Ask the same `count` times, each over a new socket."""
        return [talk.ask(**question) for _ in range(count)]  # type: ignore[arg-type]

    def repeat(self, question: dict[str, object], pause_s: float) -> int:
        """Start to ask again and again."""
        self._repetitions[number := len(self._repetitions)] = talk.Repetition(question, pause_s)
        return number

    def repeated(self, number: int, *, stop: bool) -> dict[str, object]:
        """Report on what `repeat` started, and end it."""
        repetition = self._repetitions[number]
        return repetition.stop() if stop else repetition.report()

    def start(self, argv: list[str], stdin: str, env: dict[str, str]) -> int:
        """Start a program as leader of a process group of its own."""
        folder = Path(tempfile.mkdtemp(prefix="run-"))
        (folder / "stdin").write_text(stdin)
        with (
            (folder / "stdin").open("rb") as given,
            (folder / "stdout").open("wb") as out,
            (folder / "stderr").open("wb") as err,
        ):
            try:
                child = subprocess.Popen(
                    argv, stdin=given, stdout=out, stderr=err, env=os.environ | env, start_new_session=True
                )
            except OSError:
                _remove(folder)
                raise
        self._children[child.pid] = (child, folder)
        return child.pid

    def fork(self, argv: list[str], env: dict[str, str]) -> int:
        """Start `python FLAGS -m MODULE ...` as `start` does, in a fork of a process that has imported the module."""
        folder = Path(tempfile.mkdtemp(prefix="run-"))
        for stream in ("stdin", "stdout", "stderr"):
            (folder / stream).touch()
        child = self._templates.fork(argv, dict(os.environ | env), folder)
        self._children[child.pid] = (child, folder)
        return child.pid

    def signal(self, pid: int, number: int, *, group: bool) -> None:
        """Send a signal to a program that `start` started, or to its whole group."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(pid, number)
            elif self._children[pid][0].poll() is None:
                os.kill(pid, number)

    def wait(self, pid: int, timeout_s: float) -> dict[str, object]:
        """Wait for a program; at the timeout its group is killed and the code is None."""
        child, folder = self._children.pop(pid)
        started = time.monotonic()
        try:
            code: int | None = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(pid, signal.SIGKILL)
            child.wait()
        out, err = ((folder / stream).read_text(errors="replace") for stream in ("stdout", "stderr"))
        _remove(folder)
        return {"code": code, "stdout": out, "stderr": err, "elapsed_s": time.monotonic() - started}

    def end_children(self) -> None:
        """Kill what still runs."""
        for pid, (child, folder) in self._children.items():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            child.wait()
            _remove(folder)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _reply(peer: Peer, request: dict[str, object]) -> dict[str, object]:
    try:
        result = getattr(peer, str(request["do"]))(**request["with"])  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the test's to see, over the wire
        return {"to": request["number"], "error": f"{type(error).__name__}: {error}"}
    return {"to": request["number"], "result": result}


def main(name: str, path: str) -> None:
    """Serve until the other end closes."""
    peer = Peer(name)
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(path)
        # Two files: one for both would forget, with each reply, the commands that it has read ahead.
        with wire.makefile("r", encoding="utf-8") as lines, wire.makefile("w", encoding="utf-8") as replies:
            print(json.dumps({"name": name}), file=replies, flush=True)
            try:
                for line in lines:
                    print(json.dumps(_reply(peer, json.loads(line))), file=replies, flush=True)
            except OSError:
                # The tests were killed: their end of the wire is gone, and so is the reason to stay.
                pass
            finally:
                peer.end_children()


if __name__ == "__main__":
    main(*sys.argv[1:])
