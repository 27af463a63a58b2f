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
from rulegen.apiserver.transport.kubeconfig_contents import selected_parts
from rulegen.apiserver.transport.tls import MAX_BYTES
from rulegen.errors import HostError
from rulegen.safe_files import read_regular
from rulegen.text import printable
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.apiserver.limits import ApiTerms

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
        HostError: It is not a complete kubeconfig; a file that it names is missing, not a regular file or too large; or
            it runs a program, and this is forbidden.
    """
    cluster, user = selected_parts(list(_paths(files)), context)
    for (path, values), field, most in (
        (cluster, "certificate-authority", MAX_BYTES),
        (user, "client-certificate", MAX_BYTES),
        (user, "client-key", MAX_BYTES),
        (user, "tokenFile", MAX_TOKEN_FILE),
    ):
        named = values.get(field)
        if isinstance(named, str) and named and not values.get("token" if field == "tokenFile" else f"{field}-data"):
            _check_file(path, field, path.parent / named, most)
    program = next((field for field in _PROGRAMS if user.values.get(field)), "")
    if program and not terms.exec_plugins:
        raise HostError(
            f"kubeconfig {user.path}: users[].user.{program} runs a program to get credentials, and --no-exec forbids "
            "this",
            hint="use a token or a client certificate, or omit --no-exec",
        )
    return any(user.values.get(field) for field in ("client-certificate", "client-certificate-data"))


def _paths(files: str) -> Iterator[Path]:
    for name in files.split(os.pathsep):
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - as the client does: no error where there is no home
        if name and os.path.exists(path):  # noqa: PTH110 - pathlib raises for a name that is too long
            yield path


def _check_file(kubeconfig: Path, field: str, path: Path, most: int) -> None:
    """Check whether a file that a kubeconfig names can be read completely."""
    where = f"kubeconfig {kubeconfig}: {field}: {printable(str(path), 4096)}"
    try:
        read_regular(path, most, follow=True)
    except FileNotFoundError:
        raise HostError(f"{where}: no such file", hint="`kubectl config view` shows where it is expected") from None
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
        HostError: It cannot be started, failed, printed too much, or did not end in time.
        StoppingError: This process is stopping.
    """
    WAITS.check(f"the exec plugin {args[0]}")
    process = _started(args, env, cwd, is_interactive=is_interactive)
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


def _started(args: list[str], env: dict[str, str], cwd: str | None, *, is_interactive: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            args,
            stdin=None if is_interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if is_interactive else subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=not is_interactive,  # a process group, to kill its children too; a login needs a terminal
        )
    except OSError as error:
        raise HostError(f"exec: {one_line(args[0])}: {error.strerror or error}") from None


def _drain(stream: IO[bytes] | None, kept: bytearray) -> None:
    """Read everything, and keep the beginning."""
    with suppress(OSError, ValueError):  # it was closed meanwhile
        while stream is not None and (piece := stream.read1(1 << 16)):  # type: ignore[attr-defined] # a BufferedReader
            kept += piece[: MAX_COMPLAINT - len(kept)]
