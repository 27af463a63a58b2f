"""Files and programs that a kubeconfig names: checked before the official client uses them.

That client opens any file, waits for any output of a program, and runs the program as the current user.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from rulegen.apiserver.transport.failures import one_line
from rulegen.errors import HostError
from rulegen.safe_files import read_regular
from rulegen.text import printable
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.apiserver.limits import ApiTerms

MAX_FILE: Final = 4 << 20
MAX_TOKEN_FILE: Final = 64 << 10
MAX_OUTPUT: Final = 1 << 20
"""Maximum output of a credential plugin, in bytes."""
MAX_COMPLAINT: Final = 1 << 12
PLUGIN_S: Final = 60.0
LOGIN_S: Final = 300.0
"""Time for a plugin that may ask the user at the terminal, in seconds."""

_PROGRAMS: Final = ("exec", "auth-provider")


def check(files: str, context: str | None, terms: ApiTerms) -> bool:
    """Check whether a kubeconfig may be loaded.

    Args:
        files: Paths, in the format of KUBECONFIG.
        context: The context to use; the current one by default.
        terms: Whether programs may run.

    Returns:
        Whether it has a client certificate.

    Raises:
        HostError: A token file is not a regular file or too large; or the kubeconfig runs a program, and this is
            forbidden.
    """
    documents = [(path, document) for path in _paths(files) if isinstance(document := _read(path), dict)]
    current = next((each for _, document in documents if (each := document.get("current-context"))), None)
    _, chosen = _named(documents, "context", context or current)
    path, user = _named(documents, "user", chosen.get("user"))
    if isinstance(named := user.get("tokenFile"), str) and named:
        _check_file(path, "tokenFile", path.parent / named)
    program = next((field for field in _PROGRAMS if user.get(field)), "")
    if program and not terms.exec_plugins:
        raise HostError(
            f"kubeconfig {path}: users[].user.{program} runs a program to get credentials, and --no-exec forbids this",
            hint="use a token or a client certificate, or omit --no-exec",
        )
    return any(user.get(field) for field in ("client-certificate", "client-certificate-data"))


def _paths(files: str) -> Iterator[Path]:
    for name in files.split(os.pathsep):
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - as the client does: no error where there is no home
        if name and os.path.exists(path):  # noqa: PTH110 - pathlib raises for a name that is too long
            yield path


def _read(path: Path) -> Any:
    """Return the document of a kubeconfig; None if it cannot be parsed, which the client reports."""
    import yaml  # noqa: PLC0415 - only for the client's sake

    try:
        return yaml.safe_load(read_regular(path, MAX_FILE, follow=True))
    except OSError as error:
        raise HostError(f"kubeconfig {path}: {one_line(error.strerror or error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _named(documents: list[tuple[Path, Any]], part: str, name: object) -> tuple[Path, dict[str, Any]]:
    """Return a context, cluster or user of that name from the first file that has it, and that file."""
    for path, document in documents:
        entries = document.get(f"{part}s")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(part), dict):
                return path, entry[part]
    return Path(), {}


def _check_file(kubeconfig: Path, field: str, path: Path) -> None:
    """Check whether a file that a kubeconfig names can be read completely; the client reports a missing one."""
    where = f"kubeconfig {kubeconfig}: {field}: {printable(str(path), 4096)}"
    try:
        read_regular(path, MAX_TOKEN_FILE, follow=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"{where}: {one_line(error.strerror or error)}") from error
    except ValueError:  # a NUL in the name
        raise HostError(f"{where}: is not a file name") from None


def bound_plugins() -> None:
    """Make the official client run credential plugins with limits for size and time."""
    from kubernetes.config import exec_provider, kube_config  # noqa: PLC0415 - takes 0.5 s; only live work needs it

    client: Any = kube_config
    if hasattr(client.ExecProvider, "is_bounded"):
        return

    class Bounded(exec_provider.ExecProvider):
        is_bounded = True

        def run(self, previous_response: object = None) -> Any:
            is_interactive = sys.stdout.isatty()
            spec: dict[str, Any] = {"interactive": is_interactive}
            if previous_response:
                spec["response"] = previous_response
            if self.cluster:
                spec["cluster"] = _cluster_information(self.cluster.value)
            asked = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": spec}
            self.env["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
            output = _output(self.args, self.env, self.cwd, is_interactive=is_interactive)
            return _status(output, self.api_version)

    client.ExecProvider = Bounded


def _cluster_information(cluster: Any) -> Any:
    """Return the information about the cluster for a plugin, with the extension meant for it."""
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            return {**cluster, "config": extension.get("extension")}
    return cluster


def _status(output: bytes, version: str) -> Any:
    """Return the credentials that a plugin printed.

    Raises:
        HostError: It printed something else.
    """
    try:
        credential = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise HostError(f"exec: failed to decode process output: {one_line(error)}") from None
    for key in ("apiVersion", "kind", "status"):
        if not isinstance(credential, dict) or key not in credential:
            raise HostError(f"exec: malformed response. missing key {key!r}")
    if credential["apiVersion"] != version:
        raise HostError(f"exec: plugin api version {one_line(credential['apiVersion'])} does not match {version}")
    return credential["status"]


def _output(args: list[str], env: dict[str, str], cwd: str | None, *, is_interactive: bool) -> bytes:
    """Run a plugin and return its output.

    Raises:
        HostError: It failed, printed too much, or did not end in time.
        OSError: It does not exist.
        StoppingError: This process is stopping.
    """
    WAITS.check(f"the exec plugin {args[0]}")
    process = subprocess.Popen(
        args,
        stdin=None if is_interactive else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if is_interactive else subprocess.PIPE,
        cwd=cwd,
        env=env,
        start_new_session=not is_interactive,  # a process group, to kill its children too; a login needs the terminal
    )
    seconds = LOGIN_S if is_interactive else PLUGIN_S
    is_late = threading.Event()

    def end() -> None:
        with suppress(ProcessLookupError):
            if is_interactive:
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def late() -> None:
        is_late.set()
        end()

    timer = threading.Timer(seconds, late)
    timer.daemon = True
    timer.start()
    complaint = bytearray()
    listener = threading.Thread(target=_drain, args=(process.stderr, complaint), daemon=True)
    listener.start()
    try:
        with process, WAITS.waiting(f"the exec plugin {args[0]}", pid=process.pid, limit_s=seconds, end=end) as wait:
            assert process.stdout is not None  # noqa: S101 - for the types: it is a pipe
            output = process.stdout.read(MAX_OUTPUT + 1)
            if len(output) > MAX_OUTPUT:
                raise HostError(f"exec: {args[0]}: more than {MAX_OUTPUT} bytes of output")
            process.wait()
            wait.check()
            listener.join(1.0)
    finally:
        timer.cancel()
        end()
    if is_late.is_set():
        raise HostError(f"exec: {args[0]}: did not end within {seconds:g} s and was killed")
    if process.returncode:
        said = complaint.decode("utf-8", "replace").strip()
        raise HostError(f"exec: process returned {process.returncode}{f'. {said}' if said else ''}")
    return output


def _drain(stream: IO[bytes] | None, kept: bytearray) -> None:
    """Read everything, and keep the beginning."""
    with suppress(OSError, ValueError):  # it was closed meanwhile
        while stream is not None and (piece := stream.read1(1 << 16)):  # type: ignore[attr-defined] # a BufferedReader
            kept += piece[: MAX_COMPLAINT - len(kept)]
