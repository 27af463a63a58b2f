"""The supervisor of the proxy, with a real HAProxy behind a wrapper: what it serves while its host is broken."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from rulegen.backends.userspace import configuration
from rulegen.errors import LaterError
from rulegen.host.proxy.disk import log_rotation
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import proxy as written
from rulegen.host.userspace import supervision, supervisor
from rulegen.host.userspace.exchange import ask
from rulegen.host.userspace.notices import ProxyNotices, proxy_begins
from rulegen.host.userspace.relay import client, keeper
from rulegen.host.userspace.supervision import ProxyFailedError, ProxyRefusedError
from rulegen.host.userspace.supervisor import ProxySupervisor, main
from rulegen.languages.listeners.language import ChangeProxy
from rulegen.languages.listeners.state import (
    PoolServer,
    ProxyFrontend,
    ProxyKey,
    ProxyListener,
    ProxyValue,
    ServerPool,
    frontend_key,
    listener_key,
    pool_key,
    pool_name,
    server_key,
)
from rulegen.net import Family, Protocol, parse_address
from tests.rights import needs_root

pytestmark = [needs_root, pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")]

PORT = 10261
POOL = pool_name("demo", "web", "http", Family.IPV4)
SCRIPT = """#!/bin/sh
case " $* " in
*" -c "*) while [ -e {flags}/check.hangs ]; do sleep 0.02; done ;;
*) while [ -e {flags}/start.hangs ]; do sleep 0.02; done ;;
esac
exec {haproxy} "$@"
"""


def files(affinity_s: int | None = None) -> dict[str, str]:
    """Return the files of a release that serves one Service."""
    server = PoolServer(POOL, parse_address("127.0.0.1"), 8080)
    return configuration.files(
        {
            listener_key(Family.IPV4): ProxyListener(PORT),
            pool_key(Family.IPV4, POOL): ServerPool(affinity_s),
            server_key(Family.IPV4, server): server,
            frontend_key(Family.IPV4, parse_address("10.96.0.1"), 80): ProxyFrontend(POOL),
        }
    ).texts


class Proxy:
    """The supervisor of a folder, and what it has started."""

    def __init__(self, home: Path) -> None:
        self.folder, self.flags, self.program = home / "disk" / "proxy", home, home / "haproxy"
        self.program.write_text(SCRIPT.format(flags=home, haproxy=shutil.which("haproxy")))
        self.program.chmod(0o755)

    def start(self) -> None:
        """Start a supervisor, in a copy of this process."""
        pid = os.fork()
        if not pid:
            os.closerange(3, 1 << 10)
            os._exit(main(self.folder, str(self.program)))
        assert os.waitpid(pid, 0)[1] == 0

    def start_again(self) -> None:
        """Start another supervisor, which has what a test has changed in this process."""
        self.kill(self.supervisor())
        self.start()

    def serve(self, affinity_s: int | None = None) -> None:
        """Serve a release."""
        supervision.serve(self.folder, of.write_release(self.folder, files(affinity_s)), {Family.IPV4: PORT})

    def begin(self, affinity_s: int) -> socket.socket:
        """Have a release served without waiting for it; return the connection on which the answer arrives."""
        release = of.write_release(self.folder, files(affinity_s))
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(self.folder / of.REQUESTS))
        link.sendall(f"serve {release} v4:{PORT}\n".encode())
        return link

    def supervisor(self) -> int:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self.folder / of.REQUESTS))
            return int(struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def haproxy(self) -> int:
        """Return the HAProxy that answers; 0 if none does."""
        with suppress(OSError):
            answer = ask(self.folder, of.CONTROL, "show info\n", 1) or ""
            return int(answer.partition("\nPid: ")[2].partition("\n")[0] or 0)
        return 0

    def accepts(self) -> bool:
        """Whether HAProxy takes a connection; it closes those to destinations that it does not know."""
        with socket.create_connection(("127.0.0.1", PORT), timeout=2) as client, suppress(ConnectionError):
            return client.recv(1) == b""
        return True

    def running(self, *words: str) -> list[int]:
        """Return the processes of the program with these words as arguments."""
        pids = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                argv = (entry / "cmdline").read_text().split("\0")
                if entry.name.isdigit() and str(self.program) in argv and set(words) <= set(argv):
                    pids.append(int(entry.name))
        return pids

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}/cwd").exists())

    def log(self) -> str:
        return (self.folder / of.SUPERVISOR_LOG).read_text()

    def end(self) -> None:
        """End all processes."""
        with suppress(OSError):
            self.kill(self.supervisor())
        names = {self.program.name.encode(), b"sh", b"haproxy"}
        places = {path.stat().st_ino for path in (self.folder, *self.folder.glob("release-*")) if path.exists()}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                is_ours = entry.name.isdigit() and (entry / "comm").read_bytes().strip() in names
                if is_ours and (entry / "cwd").stat().st_ino in places:
                    os.kill(int(entry.name), signal.SIGKILL)
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / of.RELAY_PROCESS).read_text().split()[0]), signal.SIGKILL)


def until(holds: Callable[[], object]) -> None:
    until_s = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def proxy(namespace: None) -> Iterator[Proxy]:
    """Give a proxy that serves, in a folder on a small disk."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)  # HAProxy is another user
        made = Proxy(home)
        disk = made.folder.parent
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", disk], check=True)
        try:
            made.start()
            made.serve()
            yield made
        finally:
            made.end()
            subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_new_supervisor_keeps_the_haproxy_that_serves(proxy: Proxy) -> None:
    """Its predecessor was killed while another HAProxy was starting."""
    (proxy.flags / "start.hangs").touch()
    served = proxy.haproxy()
    with proxy.begin(4321):
        until(lambda: proxy.running("-db", "/bin/sh"))
        (hanging,) = proxy.running("-db", "/bin/sh")
        proxy.kill(proxy.supervisor())
    proxy.start()
    assert proxy.accepts()
    assert proxy.haproxy() == served
    until(lambda: not Path(f"/proc/{hanging}/cwd").exists())
    assert proxy.accepts()
    (proxy.flags / "start.hangs").unlink()
    proxy.serve(4321)
    assert proxy.haproxy() not in {0, served}


def test_a_test_that_hangs_ends_with_its_supervisor(proxy: Proxy) -> None:
    (proxy.flags / "check.hangs").touch()
    with proxy.begin(4321):
        until(lambda: proxy.running("-c"))
        proxy.kill(proxy.supervisor())
    until(lambda: not proxy.running("-c"))
    proxy.start()
    assert proxy.accepts()


def test_a_missing_program_is_named_and_changes_nothing(proxy: Proxy) -> None:
    served = proxy.haproxy()
    proxy.program.rename(proxy.flags / "away")
    with pytest.raises(ProxyFailedError, match=r"haproxy cannot be started: .*No such file"):
        proxy.serve(4321)
    assert proxy.haproxy() == served
    proxy.kill(served)
    until(lambda: "haproxy cannot be started: [Errno 2]" in proxy.log())
    (proxy.flags / "away").rename(proxy.program)
    until(proxy.haproxy)


def test_a_full_disk_is_named_and_ends_no_process(proxy: Proxy) -> None:
    with suppress(OSError), (proxy.folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
    supervisor, served = proxy.supervisor(), proxy.haproxy()
    proxy.kill(*relays(supervisor))
    proxy.program.rename(proxy.flags / "away")
    proxy.kill(served)  # the new one cannot be started, and cannot say so
    until(lambda: relays(supervisor))
    before = copies(supervisor)
    time.sleep(0.5)
    assert before & copies(supervisor) == {supervisor, *relays(supervisor)}, "no copy goes on as a supervisor"
    (proxy.flags / "away").rename(proxy.program)
    until(proxy.haproxy)
    assert proxy.supervisor() == supervisor
    (proxy.folder / "filler").unlink()
    until(lambda: (proxy.folder / of.RELAY_PROCESS).read_text().strip())
    assert relays(supervisor) == {int((proxy.folder / of.RELAY_PROCESS).read_text().split()[0])}


def children(supervisor: int) -> dict[int, str]:
    """Return the name of each child of the supervisor."""
    names = {}
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        with suppress(OSError):  # it has just ended
            names[int(pid)] = Path(f"/proc/{pid}/comm").read_text().strip()
    return names


def relays(supervisor: int) -> set[int]:
    """Return the relay that runs now."""
    return {pid for pid, name in children(supervisor).items() if name == "rulegen relay"}


def copies(supervisor: int) -> set[int]:
    """Return the supervisor and the copies of it."""
    own = Path(f"/proc/{supervisor}/comm").read_text().strip()
    return {supervisor, *(pid for pid, name in children(supervisor).items() if name in {own, "rulegen relay"})}


def test_a_removed_folder_ends_the_supervisor(proxy: Proxy) -> None:
    """So that the next one can listen: no request reaches the old one any more."""
    served = proxy.haproxy()
    shutil.rmtree(proxy.folder)
    until(lambda: not Path(f"/proc/{served}/cwd").exists())
    proxy.start()
    proxy.serve()
    assert proxy.accepts()


def test_a_relay_that_hangs_is_replaced(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "HANGS_S", 1.0)
    proxy.start_again()
    until(lambda: relays(proxy.supervisor()))  # it gets its name a moment after the supervisor serves
    supervisor, served, (stopped,) = proxy.supervisor(), proxy.haproxy(), relays(proxy.supervisor())
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: relays(supervisor) - {stopped})
    assert client.observe(proxy.folder)
    until(lambda: f"the relay of UDP (process {stopped}) did not answer for 1 s and was killed" in proxy.log())
    assert not Path(f"/proc/{stopped}/cwd").exists()
    assert (proxy.haproxy(), proxy.supervisor()) == (served, supervisor)


def test_a_relay_that_hangs_delays_no_change_of_tcp(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of, "of_this_namespace", lambda: proxy.folder)
    monkeypatch.setattr(keeper, "HANGS_S", 2.0)
    proxy.start_again()
    written.write(ChangeProxy(((listener_key(Family.IPV4, Protocol.UDP), ProxyListener(PORT)),)))
    until(lambda: relays(proxy.supervisor()))  # it gets its name a moment after the supervisor serves
    (stopped,) = relays(proxy.supervisor())
    changes: dict[ProxyKey, ProxyValue] = {}
    for protocol in (Protocol.TCP, Protocol.UDP):
        server = PoolServer(POOL, parse_address("127.0.0.1"), 8081)
        changes[pool_key(Family.IPV4, POOL, protocol)] = ServerPool(None)
        changes[server_key(Family.IPV4, server, protocol)] = server
        changes[frontend_key(Family.IPV4, parse_address("10.96.0.2"), 80, protocol)] = ProxyFrontend(POOL)
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(written.write, ChangeProxy(tuple(changes.items())))
        until(lambda: "10.96.0.2:80" in (ask(proxy.folder, of.CONTROL, "show map v4.map\n", 1) or ""))
        assert relays(proxy.supervisor()) == {stopped}
        ended.result(15)
    served = written.observe()
    assert {key: served.get(key) for key in changes} == changes


def test_a_supervisor_that_fails_says_why_in_its_log(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    served = proxy.haproxy()
    monkeypatch.setattr(ProxySupervisor, "_look_at_folder", lambda _: 1 // 0)
    proxy.start_again()
    until(lambda: "the supervisor ends: Traceback" in proxy.log())
    assert "ZeroDivisionError" in proxy.log()
    assert proxy.haproxy() == served
    assert proxy.accepts()


def test_the_log_of_the_supervisor_stays_small(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(log_rotation.cut.__kwdefaults__, "largest", 1000)
    proxy.start_again()
    log = proxy.folder / of.SUPERVISOR_LOG
    old = log.with_name(f"{log.name}.1")
    for text in ("first", "second"):
        with log.open("a") as file:
            file.write(f"{text}\n" * 400)
        until(lambda: log.stat().st_size <= 1000)
        until(lambda text=text: old.exists() and text in old.read_text())  # it is written after the log is cut
    proxy.kill(proxy.haproxy())
    until(lambda: "has ended; a new one" in proxy.log())


@pytest.mark.parametrize("flag", ["check.hangs", "start.hangs"])
def test_a_change_that_takes_long_goes_on_and_is_served(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    """The command can write other changes meanwhile."""
    monkeypatch.setattr(supervisor, "LATER_S", 0.3)
    proxy.start_again()
    served = proxy.haproxy()
    (proxy.flags / flag).touch()
    with pytest.raises(LaterError, match=r"after [01] s"):
        proxy.serve(4321)
    for affinity_s in (4321, 1234):
        with pytest.raises(LaterError, match=r"has not ended|does not answer"):
            proxy.serve(affinity_s)
    assert proxy.accepts()
    assert proxy.haproxy() == served
    (proxy.flags / flag).unlink()
    until(lambda: proxy.haproxy() not in {0, served})
    changed = proxy.haproxy()
    supervision.keep(proxy.folder, of.write_release(proxy.folder, files(4321)))
    assert proxy.haproxy() == changed


def test_a_late_verdict_is_said_to_the_next_who_asks(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LATER_S", 0.3)
    proxy.start_again()
    (proxy.flags / "check.hangs").touch()
    with pytest.raises(LaterError):
        proxy.serve(4321)
    release = proxy.folder / of.write_release(proxy.folder, files(4321))
    (release / "haproxy.cfg").write_text("bogus\n")
    (proxy.flags / "check.hangs").unlink()
    until(lambda: "a new HAProxy does not serve: " in proxy.log())
    with pytest.raises(ProxyRefusedError, match="bogus"):
        proxy.serve(4321)


def is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(path)) == 0


@pytest.mark.parametrize("has_ended", [True, False])
def test_only_a_proxy_that_has_not_ended_must_answer(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, has_ended: bool
) -> None:
    """In another mode, nothing would start the proxy of an earlier agent again."""
    monkeypatch.setattr(of, "of_this_namespace", lambda: proxy.folder)
    haproxy, keeping = proxy.haproxy(), proxy.supervisor()
    os.kill(keeping, signal.SIGKILL if has_ended else signal.SIGSTOP)
    proxy.kill(haproxy)
    names = (of.REQUESTS, of.CONTROL) if has_ended else (of.CONTROL,)
    until(lambda: not any(is_listening(proxy.folder / name) for name in names))
    heard: list[bool] = []
    notices = ProxyNotices(lambda _: None, heard.append, lambda _: None)
    notices.start()
    assert has_ended == ("proxy answers" not in {thread.name for thread in threading.enumerate()})
    proxy_begins()
    until(lambda: len(heard) > 1)
    with suppress(ProcessLookupError):
        os.kill(keeping, signal.SIGCONT)
    notices.stop()
    assert heard[:2] == [has_ended, has_ended]


@pytest.mark.parametrize("what", ["is stopped", "lost its socket"])
def test_an_haproxy_that_does_not_answer_is_replaced(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It is not ended: what it has begun goes on with it."""
    monkeypatch.setattr(supervisor, "HANGS_S", 1.0)
    proxy.start_again()
    hanging, keeping = proxy.haproxy(), proxy.supervisor()
    if what == "is stopped":
        os.kill(hanging, signal.SIGSTOP)
    else:
        (proxy.folder / of.CONTROL).unlink()
    with socket.create_connection(("127.0.0.1", PORT), timeout=10) as client:
        until(lambda: proxy.haproxy() not in {0, hanging})
        assert what == "lost its socket" or Path(f"/proc/{hanging}/cwd").exists()
        os.kill(hanging, signal.SIGCONT) if what == "is stopped" else None
        assert client.recv(1) == b"", "a connection that waited is served"
    until(lambda: not Path(f"/proc/{hanging}/cwd").exists())
    assert f"HAProxy (process {hanging}) did not answer for 1 s; a new one after" in proxy.log()
    assert proxy.accepts()
    assert proxy.supervisor() == keeping


def test_a_supervisor_that_lost_its_socket_makes_another(proxy: Proxy) -> None:
    keeping = proxy.supervisor()
    (proxy.folder / of.REQUESTS).unlink()
    until((proxy.folder / of.REQUESTS).exists)
    assert proxy.supervisor() == keeping
    proxy.serve(4321)


def test_a_supervisor_that_hangs_is_replaced_by_a_write(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of, "of_this_namespace", lambda: proxy.folder)
    monkeypatch.setattr(supervision, "_STATE_S", 0.5)
    monkeypatch.setattr(supervision, "find", lambda _: str(proxy.program))
    hanging, served = proxy.supervisor(), proxy.haproxy()
    os.kill(hanging, signal.SIGSTOP)
    listener = listener_key(Family.IPV4)
    assert written.observe()[listener] != ProxyListener(PORT), "nobody starts it again"
    written.write(ChangeProxy(((listener, ProxyListener(PORT)),)))
    assert proxy.supervisor() not in {0, hanging}
    assert not Path(f"/proc/{hanging}/cwd").exists()
    assert Path(f"/proc/{served}/cwd").exists()
    assert proxy.accepts()
    assert written.observe()[listener] == ProxyListener(PORT)
