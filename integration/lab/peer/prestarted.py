"""`python prestarted.py SOCKET MODULE`: a program that is imported once, and each time run in a fork.

A fresh interpreter that imports a large program costs most of what a short run of it costs, and under user-mode Linux
some seconds. What runs in a fork has arguments, an environment, streams and a session of its own, and ends as it would
by itself.

Lines of JSON arrive at a socket whose descriptor is SOCKET: `{"argv": [...], "env": {...}, "folder": PATH, "network":
PATH}`, with files `stdin`, `stdout` and `stderr` in the folder, and a network namespace or nothing. Each is answered by
`{"pid": N}`, when it runs with these, and, at its end, by `{"ended": N, "code": C}`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from typing import NoReturn, TextIO

CLONE_NEWNET = 0x40000000


def load(module: str, argv: list[str]) -> None:
    """Import a program and the command that is called, which it imports itself only then."""
    importlib.import_module(f"{module}.__main__")
    del sys.modules[f"{module}.__main__"]  # it runs in each fork
    if argv and argv[0].isalpha():
        importlib.import_module(f"{module}.cli.commands.{argv[0]}")


def enter(network: str) -> None:
    """Move this process into a network namespace, given by its file."""
    there = os.open(network, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(there, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"no way into {network}")
    os.close(there)


def stream(number: int) -> TextIO:
    """Return a standard stream as an interpreter makes it: only now it is known whether it is a terminal or a file."""
    errors, buffering = ("backslashreplace", 1) if number == 2 else (sys.stdin.errors, -1)
    return open(number, "w" if number else "r", buffering, sys.stdin.encoding, errors, closefd=False)


class Template:
    """The process that forks; `serve` returns in each fork, and in this process when nobody asks any more."""

    def __init__(self, descriptor: int, module: str) -> None:
        self._module = module
        self._socket = socket.socket(fileno=descriptor)
        self._ended, ends = os.pipe()
        self._pipe = (self._ended, ends)
        for end in self._pipe:
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ends)
        self._buffer = b""

    def serve(self) -> list[str] | None:
        """Return the arguments of a program that is to run here; None at the end."""
        while True:
            ready, _, _ = select.select([self._socket, self._ended], [], [])
            if self._ended in ready:
                os.read(self._ended, 4096)
                self._report()
            if self._socket in ready:
                arrived = self._received()
                if not arrived:
                    self._socket.close()
                    return None
                self._buffer += arrived
                while b"\n" in self._buffer:
                    line, _, self._buffer = self._buffer.partition(b"\n")
                    asked = json.loads(line)
                    load(self._module, asked["argv"])
                    if not self._fork(asked):
                        return list(asked["argv"])

    def _received(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionResetError:  # it ended before it read all
            return b""

    def _fork(self, asked: dict[str, object]) -> int:
        ready, tell = os.pipe()
        gc.freeze()  # no collection in a fork writes to, and so copies, what was imported here
        pid = os.fork()
        if pid:
            os.close(tell)
            os.read(ready, 1)  # or it has ended
            os.close(ready)
            self._send(pid=pid)
        else:
            os.close(ready)
            self._become(dict(asked["env"]), str(asked["folder"]), str(asked["network"]))  # type: ignore[call-overload]
            os.close(tell)
        return pid

    def _become(self, env: dict[str, str], folder: str, network: str) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._socket.close()
        for end in self._pipe:
            os.close(end)
        os.setsid()
        if network:
            enter(network)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            opened = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
            os.dup2(opened, number)
            os.close(opened)
            setattr(sys, name, stream(number))
        os.environ.clear()
        os.environ.update(env)

    def _report(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._send(ended=pid, code=os.waitstatus_to_exitcode(status))

    def _send(self, **message: int) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")


def run(module: str) -> int:
    """Run a program and return its exit code; what it raises is printed."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - as an interpreter does that ends with it
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def end(code: int) -> NoReturn:
    """End as an interpreter does, but give back no memory: it would write to, and so copy, all that it shares."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as an interpreter does first
    atexit._run_exitfuncs()  # noqa: SLF001
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    os._exit(code)


if __name__ == "__main__":
    program = sys.argv[2]
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it, in the place of the folder of this file
    template = Template(int(sys.argv[1]), program)
    arguments = template.serve()
    if arguments is not None:
        sys.argv = [program, *arguments]
        end(run(program))
