"""The programs that serve Ingresses in a sequence of faults: one row for each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.host.haproxy.program import HAPROXY
from rulegen.host.nginx.program import NGINX

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.program import ProxyProgram

SCRIPT = """#!/bin/sh
case " $* " in *" {test_option} "*) {test} ;; *) {start} ;; esac
exec /usr/sbin/{name} "$@"
"""


@dataclass(frozen=True)
class IngressProgram:
    """A program that serves Ingresses.

    Attributes:
        program: How it is started.
        test_option: The option with which it tests a configuration.
        compared: Matches the files that objects alone determine.
        volatile: Matches parts of them that differ after each start, such as the digest of a new certificate.
        host: Matches a host that is served.
        foreign: A file that others write to its folder.
    """

    program: ProxyProgram
    test_option: str
    compared: str
    volatile: re.Pattern[str]
    host: re.Pattern[str]
    foreign: str

    @property
    def name(self) -> str:
        return self.program.name

    def options(self, folder: Path, binary: Path) -> tuple[str, ...]:
        """Return the options for an agent that serves Ingresses with it."""
        return (
            *("--ingress", "--ingress-engine", self.name),
            *(f"--{self.name}-dir", str(folder), f"--{self.name}-binary", str(binary)),
        )

    def script(self, test: str, start: str) -> str:
        """Return a script that runs commands before a test or before a start of the program."""
        return SCRIPT.format(test_option=self.test_option, test=test, start=start, name=self.name)

    def files(self, current: Path) -> Mapping[str, str]:
        """Return the files of a release that are compared."""
        texts = {str(path.relative_to(current)): path.read_text() for path in sorted(current.glob(self.compared))}
        return {name: self.volatile.sub("", text) for name, text in texts.items()}

    def hosts(self, files: Mapping[str, str]) -> set[str]:
        """Return the hosts that are served."""
        return {name for text in files.values() for name in self.host.findall(text)}


PROGRAMS = tuple(
    each
    for each in (
        IngressProgram(
            program=NGINX,
            test_option="-t",
            compared="**/*.conf",
            volatile=re.compile(r"return 200 [0-9a-f]{32};"),
            host=re.compile(r'server_name "?([\w.-]+\.test)\b'),
            foreign=f"hosts/{'0' * 16}.conf",
        ),
        IngressProgram(
            program=HAPROXY,
            test_option="-c",
            compared="maps/*.map",
            volatile=re.compile(r"(?!)"),
            host=re.compile(r"^([\w-]+\.test)\b", re.MULTILINE),
            foreign="maps/hosts.map",
        ),
    )
    if shutil.which(each.name)
)
"""Those that are installed."""


def drawn(layout: int, seed: int) -> IngressProgram:
    """Return the program for a sequence: each layout gets another one, and with the next seed the next one."""
    return PROGRAMS[(layout + seed) % len(PROGRAMS)]
