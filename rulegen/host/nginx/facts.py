"""Facts of the installed nginx, from its own output."""

from __future__ import annotations

import grp
import pwd
import re
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.runner import VERSION_S, Command, MissingToolError
from rulegen.languages.nginx.facts import HEADERS_MORE, NginxFacts
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.host.commands.runner import Runner

WORKER_USERS: Final = ("rulegen-nginx", "www-data", "nginx", "nobody")
"""The default users of workers, in order.

The first one has no other processes; the image and deploy/systemd create it. Then follow the users of Debian's package,
of nginx.org's, and of no package, whose other processes can inspect workers."""

AGAIN_S: Final = 60.0
"""When nginx is asked again whether it can load a module, if it has not answered."""
_INSTALL: Final = "apt install nginx-light"
_VERSION: Final = re.compile(r"nginx version: \S+/(\d+)\.(\d+)\.(\d+)")
_OPENSSL: Final = re.compile(r"(?:running with|built with) OpenSSL ([\w.-]+)")
_WITH: Final = re.compile(r"--with-([\w-]+)(=dynamic)?(?=\s|$)")
_MODULES_PATH: Final = re.compile(r"--modules-path=(\S+)")
_SEEN_BY_SANDBOX: Final = re.compile(r"/usr/[A-Za-z0-9_./+-]+\.so\Z")
_ADDED: Final = re.compile(r"--add-module=\S*?headers[-_]more")
_PREFIX: Final = re.compile(r"--prefix=(\S+)")


def gather_nginx(run: Runner, binary: str = "nginx", *, user: str = "") -> NginxFacts:
    """Return the facts of the installed nginx.

    Args:
        run: Runs the tools.
        binary: The name or path of nginx.
        user: The user of workers; if empty, the first of `WORKER_USERS` that exists on this node.

    Raises:
        HostError: nginx is not installed, its output has another format, or `user` does not exist.
    """
    try:
        answer = run(Command((binary, "-V"), timeout_s=VERSION_S))
    except MissingToolError:
        raise HostError(f"{binary} is not installed", hint=_INSTALL) from None
    version = _VERSION.search(answer.stderr)
    if answer.code != 0 or version is None:
        raise HostError(f"{binary} -V shows no version of nginx: {answer.complaint}", hint=_INSTALL)
    configured = answer.stderr.partition("configure arguments:")[2]
    # if two versions are printed, the last one is that of the loaded library
    openssl = _OPENSSL.findall(answer.stderr)
    name, group = worker(user)
    return NginxFacts(
        version=(int(version[1]), int(version[2]), int(version[3])),
        built_in=frozenset(match[1] for match in _WITH.finditer(configured) if not match[2])
        | ({HEADERS_MORE} if _ADDED.search(configured) else set()),
        modules=MappingProxyType(_modules(configured)),
        openssl=openssl[-1] if openssl else "",
        user=name,
        group=group,
    )


def _modules(configured: str) -> dict[str, str]:
    prefix = _PREFIX.search(configured)
    path = _MODULES_PATH.search(configured)
    folder = Path(path[1]) if path else Path(prefix[1] if prefix else "/usr/local/nginx") / "modules"
    return {file.stem: str(file) for file in sorted(folder.glob("*.so"))}


def without_unloadable(run: Runner, binary: str, facts: NginxFacts, module: str) -> NginxFacts:
    """Return facts without a module if nginx cannot load it: it may be of another version of nginx."""
    path = facts.modules.get(module)
    if path is None or (_SEEN_BY_SANDBOX.match(path) and _loads(run, binary, path)):
        return facts
    return replace(facts, modules={name: file for name, file in facts.modules.items() if name != module})


@dataclass(slots=True)
class CheckedFacts:
    """The facts of nginx, without a module that it cannot load. nginx is asked when they are first needed.

    While `nginx -t` hangs or fails for another reason, an agent must start all the same, and nothing is served with the
    module before the same `nginx -t` has accepted it: until it has answered, the module counts as loadable.

    Attributes:
        run: Runs nginx.
        gather: Returns the facts that nginx prints; it is called until it succeeds.
        module: The module to check.
        trouble: Why `nginx -t` has not answered; empty if it has.
    """

    run: Runner
    binary: str
    gather: Callable[[], NginxFacts]
    module: str
    clock: Callable[[], float] = time.monotonic
    trouble: str = ""
    _gathered: NginxFacts | None = field(default=None, init=False)
    _checked: NginxFacts | None = field(default=None, init=False)
    _again_at: float = field(default=0.0, init=False)

    def facts(self) -> NginxFacts:
        """Return the facts. Ask about the module, at most once a minute, if there was no answer yet.

        Raises:
            HostError: There are no facts; see `gather_nginx`.
        """
        gathered = self._gathered = self._gathered or self.gather()
        if self._checked is None and self.clock() >= self._again_at:
            try:
                self._checked = without_unloadable(self.run, self.binary, gathered, self.module)
                self.trouble = ""
            except StoppingError:
                raise
            except HostError as error:
                self.trouble = error.message
                self._again_at = self.clock() + AGAIN_S
        return self._checked or gathered


def _loads(run: Runner, binary: str, path: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="rulegen-nginx-") as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(f"load_module {path};\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n")
        ended = run(
            Command((binary, "-t", "-q", "-e", "stderr", "-p", f"{folder}/", "-c", str(file)), timeout_s=VERSION_S)
        )
    if ended.code != 0 and path not in ended.stderr:  # it has failed for another reason
        raise HostError(f"{binary} -t does not say whether it can load {path}: {ended.complaint}")
    return ended.code == 0


def worker(user: str) -> tuple[str, str]:
    """Return the user and the group of nginx's workers; empty if none of `WORKER_USERS` exists.

    Raises:
        HostError: `user` is not empty and does not exist.
    """
    for name in (user,) if user else WORKER_USERS:
        try:
            entry = pwd.getpwnam(name)
            return entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name
        except KeyError:
            continue
    if user:
        raise HostError(f"there is no user {user!r} for nginx to run as", hint=f"adduser --system --group {user}")
    return "", ""
