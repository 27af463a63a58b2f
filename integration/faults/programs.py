"""Programs of a node that hang, are slow, or fail without a word, on request: wrappers around the real ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.agent import Process

NOTICE_S = 0.4
"""After this time, an agent with short limits logs a wait."""
RESTORE_S = 3.0
"""Such an agent waits this long for a tool of netfilter."""

SBIN = Path("/usr/sbin")
SCRIPT = """#!/bin/sh
# The tool itself, unless a file says otherwise: it reads its input first, as one that is started early does.
input=$(mktemp) && cat > "$input"
while [ -e {flags}/{name}.hangs ]; do sleep 0.05; done
if [ -e {flags}/{name}.slow ]; then sleep "$(cat {flags}/{name}.slow)"; fi
if [ -e {flags}/{name}.fails ]; then rm "$input"; exit "$(cat {flags}/{name}.fails)"; fi
exec {real}/{name} "$@" < "$input"
"""
PROGRAM = f"""
import sys
from rulegen.agent import starting
from rulegen.agent.runtime import waiting
from rulegen.agent.telemetry import state
from rulegen.host.netfilter import conntrack, ipset, iptables, variant
from rulegen.host.proxy.sandbox import trial
waiting.NOTICE_S, state.SHOWN_S, waiting.TERM_S, trial.TEST_S = {NOTICE_S}, {NOTICE_S}, 0.5, 2.0
variant.call.__kwdefaults__["timeout_s"] = conntrack.LIST_S = ipset.RESTORE_S = {RESTORE_S}
variant.VERSION_S = starting.VERSION_S = {RESTORE_S}
iptables.RESTORE_S, iptables.LINE_S = {RESTORE_S}, 0.001
from rulegen.cli.main import main
sys.exit(main())
"""
SHORT_LIMITS = f'shift 5 && exec {sys.executable} -c "$PROGRAM" "$@"'
"""Starts an agent with short limits in a shell; the variable PROGRAM must have that text."""


@dataclass
class Tools:
    """Tools of a node that hang, are slow, or fail without a word, on request.

    Attributes:
        programs: The folder to mount over /usr/sbin.
        flags: The folder of the requests.
        agent: The agent that uses them.
    """

    programs: Path
    flags: Path
    agent: Process | None = None

    @classmethod
    def wrapped(cls, folder: Path, names: tuple[str, ...]) -> Tools:
        """Copy the tools of netfilter to a folder, those with these names behind wrappers."""
        real, tools = folder / "real", cls(folder / "sbin", folder / "flags")
        for each in (real, tools.programs, tools.flags):
            each.mkdir()
        others = [SBIN / name for name in ("conntrack", "ipset", "ipvsadm", "nft") if (SBIN / name).exists()]
        for tool in (*SBIN.glob("*tables*"), *others):
            is_name = tool.name in names
            shutil.copy(tool, (real if is_name else tools.programs) / tool.name, follow_symlinks=False)
            if not tool.is_symlink():
                shutil.copy(tool, real / tool.name)
            if is_name:
                script = tools.programs / tool.name
                script.write_text(SCRIPT.format(flags=tools.flags, real=real, name=tool.name))
                script.chmod(0o755)
        return tools

    def broken(self) -> list[str]:
        """Return the tools that hang, fail or are missing now."""
        return [file.stem for file in self.flags.iterdir() if file.suffix in {".hangs", ".fails", ".away"}]

    @contextmanager
    def hanging(self, *names: str) -> Iterator[None]:
        """Let tools hang."""
        with self.flagged("hangs", "", *names):
            yield

    @contextmanager
    def failing(self, code: int, *names: str) -> Iterator[None]:
        """Let tools exit with a code, without a word."""
        with self.flagged("fails", str(code), *names):
            yield

    @contextmanager
    def flagged(self, kind: str, text: str, *names: str) -> Iterator[None]:
        """Let tools do something else than they should."""
        files = [self.flags / f"{name}.{kind}" for name in names]
        for file in files:
            file.write_text(text)
        try:
            yield
        finally:
            for file in files:
                file.unlink()

    @contextmanager
    def missing(self, *names: str) -> Iterator[None]:
        """Take tools away."""
        with ExitStack() as stack:
            for name in names:
                present, away = self.programs / name, self.flags / f"{name}.away"
                present.rename(away)
                stack.callback(away.rename, present)
            yield


@contextmanager
def mounted(folder: Path) -> Iterator[int]:
    """Give a process whose mount namespace has the wrapped tools, and a small file system for the proxy's folder."""
    mount = (
        f"mount --bind {folder}/sbin /usr/sbin && mount -t tmpfs -o size=4m,nr_inodes=1500,mode=755 none {folder}/site"
        " && echo done && exec sleep 3600"
    )
    argv = ["unshare", "--mount", "sh", "-c", mount]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"done\n"
            yield holder.pid
        finally:
            holder.kill()
