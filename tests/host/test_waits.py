"""Everything that can hang has an end: a lock that somebody holds, a kernel that does not answer, a stop."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rulegen
from rulegen.agent.runtime.waiting import StopDeadline, WaitReports
from rulegen.agent.telemetry.log import AgentLog
from rulegen.apiserver.transport import kubeconfig
from rulegen.host.commands.runner import Command, run
from rulegen.host.haproxy import status as haproxy_status
from rulegen.host.haproxy import worker
from rulegen.host.locks import file_locks
from rulegen.host.netlink import messages
from rulegen.host.nginx import status as nginx_status
from rulegen.host.userspace.exchange import ask
from rulegen.waits import WAITS, StoppingError, Waits

USERSOCK = 2


@pytest.fixture
def held(tmp_path):
    """Give a file that another process has locked for ever."""
    path = tmp_path / "lock"
    path.touch(0o600)
    text = f"import fcntl, time; f = open({str(path)!r}, 'w'); fcntl.flock(f, 2); print(1, flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield path
        process.kill()


def ended_by(job) -> list[BaseException]:
    """Run a job in a thread, end all waits as soon as it waits, and return its error."""
    errors: list[BaseException] = []

    def body() -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is what we want
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    until = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < until:
        time.sleep(0.1)
        WAITS.end_all()
    thread.join(1)
    assert not thread.is_alive()
    return errors


def locked(path) -> None:
    with file_locks.locked(path):
        pass


def test_a_lock_that_is_held_for_ever_is_given_up(held, monkeypatch):
    monkeypatch.setattr(file_locks, "WAIT_S", 0.2)

    with pytest.raises(OSError, match=r"another process has held the lock for 0\.2 s"):
        locked(held)


def unanswered(folder) -> None:
    """Ask a process that accepts no connection."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "silent"))
        silent.listen()
        ask(folder, "silent", "state\n", 100)


ENDLESS = {
    "a lock": locked,
    "a tool with its children": lambda _: run(Command(("sh", "-c", "sleep 100 & sleep 100"))),
    "a socket": lambda held: unanswered(held.parent),
    "an exec plugin": lambda _: kubeconfig._output(["sleep", "100"], {}, None, is_interactive=False),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_stop_ends_the_wait_for(held, what):
    (error,) = ended_by(lambda: ENDLESS[what](held))
    assert isinstance(error, StoppingError)


SILENT = {
    nginx_status.NAME: (nginx_status, lambda folder: nginx_status.ask(folder, timeout_s=0.2)),
    haproxy_status.SOCKET: (haproxy_status, lambda folder: haproxy_status.serves(folder, timeout_s=0.2)),
    haproxy_status.WORKER_SOCKET: (worker, worker.observe),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_proxy_that_does_not_answer_is_given_up(tmp_path, monkeypatch, name):
    module, question = SILENT[name]
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "run" / name))
        silent.listen()
        assert question(tmp_path) is None


PLACES = {
    "agent/pages_server/http_loop.py": "pages_server: its sockets never block, and clients that are late are cut",
    "agent/runtime/signals.py": "it waits for signals, in a thread of its own",
    "apiserver/referred/streams.py": "it has been told that there is something to read",
    "apiserver/transport/kubeconfig.py": "ENDLESS",
    "host/commands/runner.py": "ENDLESS, test_hanging_tools.py",
    "host/haproxy/status.py": "SILENT",
    "host/haproxy/worker.py": "SILENT",
    "host/netfilter/nft_commits.py": "it waits for notices, in a thread of its own",
    "host/netlink/messages.py": "ASKING",
    "host/nftables/kernel/transaction.py": "a limit for each answer of the kernel (SO_RCVTIMEO)",
    "host/nginx/status.py": "SILENT",
    "host/node/interfaces.py": "it waits for notices, in a thread of its own",
    "host/proxy/processes/supervision.py": "a limit; the supervisor detaches itself",
    "host/proxy/processes/supervisor.py": "test_hanging_start.py; a child is waited for when it has ended",
    "host/proxy/resolver/control.py": "a limit for the answer; a child is waited for when it was killed",
    "host/proxy/sandbox/child.py": "integration/hangs/test_nginx.py: the process that has started it kills it",
    "host/userspace/exchange.py": "ENDLESS",
    "host/userspace/instances.py": "its sockets never block",
    "host/userspace/notices.py": "a limit for the connection; its end is a stop",
    "host/userspace/pulse.py": "its socket never blocks",
    "host/userspace/relay/relay.py": "its sockets never block, and a command has a limit",
    "host/userspace/supervisor.py": "integration/agents/test_userspace.py: it waits for nobody but its clients",
}
"""Each module that calls what can block, and what ends that, with the test that makes it hang."""
BLOCKING = re.compile(
    r"Popen\(|communicate\(|subprocess\.run\(|\.flock\((?!.*LOCK_NB)|\.recv\w*\(|\.sendall\(|os\.waitpid\((?!.*WNOHANG)"
)


def test_every_place_that_can_block_is_in_the_table():
    package = Path(rulegen.__file__).parent
    places = {
        str(path.relative_to(package))
        for part in ("agent", "apiserver", "host")
        for path in (package / part).rglob("*.py")
        if BLOCKING.search(path.read_text(encoding="utf-8"))
    }

    assert places == set(PLACES)


def test_nothing_is_started_while_the_process_is_stopping():
    WAITS.refuse()
    try:
        with pytest.raises(StoppingError, match="sleep 0"):
            run(Command(("sleep", "0")))
    finally:
        WAITS.refuse(are_refused=False)


ASKING = {
    "dump": lambda link, request: list(messages.dump(link, request)),
    "ask": messages.ask,
    "acknowledged": lambda link, request: messages.acknowledged(link, [request]),
}


@pytest.mark.parametrize("ask", ASKING)
def test_a_kernel_that_does_not_answer_is_given_up(monkeypatch, ask):
    """A real netlink socket, whose messages go to another socket that nobody reads."""
    monkeypatch.setattr(messages, "_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, USERSOCK) as silent:
        silent.bind((0, 0))
        with messages.connect(USERSOCK) as link:
            link.connect(silent.getsockname())
            request = messages.message(1, 0, 0, b"\0\0\0\0")
            with pytest.raises(TimeoutError):
                ASKING[ask](link, request)


def test_a_long_wait_is_logged_whenever_it_has_doubled():
    now = [0.0]
    waits, out = Waits(lambda: now[0]), io.StringIO()
    reports = WaitReports(AgentLog(out=out), waits, notice_s=15.0)
    with waits.waiting("writing IPv4 nat"), waits.waiting("iptables-restore", pid=7, limit_s=60.0):
        for second in range(70):
            now[0] = second
            for wait, age_s in waits.due(reports.notice_s):
                out.write(f"{wait.what} {wait.pid} {age_s:g}\n")

    assert out.getvalue().splitlines() == ["iptables-restore 7 15", "iptables-restore 7 30", "iptables-restore 7 60"]


def test_a_wait_of_the_main_thread_that_cannot_be_ended_ends_the_process():
    waits, out, codes = Waits(), io.StringIO(), []
    left = threading.Event()
    deadline = StopDeadline(
        AgentLog(out=out), waits, term_s=0.1, kill_s=0.1, leave=lambda code: (codes.append(code), left.set())
    )
    with waits.waiting("the disk: writing release 1"):
        deadline.begin()
        assert left.wait(10)

    assert codes == [1]
    assert "stopped although a wait has not ended" in out.getvalue()
    assert "the disk: writing release 1" in out.getvalue()


def test_a_computation_of_the_main_thread_is_not_interrupted():
    codes: list[int] = []
    deadline = StopDeadline(AgentLog(out=io.StringIO()), Waits(), term_s=0.05, kill_s=0.05, leave=codes.append)
    deadline.begin()
    time.sleep(0.4)
    deadline.stopped()

    assert codes == []
