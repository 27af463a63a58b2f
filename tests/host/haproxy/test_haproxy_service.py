"""Serving with HAProxy: what was asked for is served, or what was served before still is, whatever dies in between."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import run
from rulegen.host.haproxy import status
from rulegen.host.haproxy.program import HAPROXY, HaproxyProgram
from rulegen.host.proxy import process_list
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import GENERATIONS, ProxyService
from tests.apiserver.watching import soon
from tests.host.haproxy.examples import configuration
from tests.rights import needs_root

pytestmark = needs_root

FIRST, SECOND = configuration("first"), configuration("second")
BROKEN = configuration("broken", more="    bogus on")
DEAF_SCRIPT = """#!/bin/sh
if [ -e {flag} ]; then
    trap '' USR1
    touch {flag}.seen
    while [ -e {flag} ]; do sleep 0.1; done
fi
exec /usr/sbin/haproxy "$@"
"""
"""Starts HAProxy; as long as a file exists, it waits before that, and ignores the signal that ends HAProxy."""


def get(timeout_s: float = 5) -> str:
    with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=timeout_s) as answer:
        return answer.read().decode()


def answer() -> str | None:
    """Return what a client gets; None where it gets nothing."""
    try:
        return get(timeout_s=1)
    except OSError:
        return None


def test_the_first_apply_starts_haproxy_and_its_workers_are_not_root(service):
    outcome = service.apply(FIRST, listens=[8080])

    assert (outcome.action, outcome.digest, get()) == (DeployAction.STARTED, FIRST.digest, "first")
    result = service.status()
    assert (result.digest, result.workers, result.generations) == (FIRST.digest, 1, 1)
    (worker,) = process_list.workers(HAPROXY.processes(service.folder))
    assert Path(f"/proc/{worker.pid}").stat().st_uid == pwd.getpwnam("haproxy").pw_uid


def test_the_socket_of_the_master_is_for_root_alone(service):
    service.apply(FIRST)

    run = service.folder / "run"
    assert stat.S_IMODE((run / status.SOCKET).stat().st_mode) == 0o600
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_all_new_connections_have_a_change_when_apply_returns(service):
    service.apply(FIRST)
    master = service.status().master

    outcome = service.apply(SECOND)

    assert outcome.action is DeployAction.RELOADED
    assert {get() for _ in range(30)} == {"second"}
    assert service.status().master == master


def test_no_connection_fails_while_haproxy_reloads(service):
    service.apply(FIRST)
    answers: list[str | None] = []
    ended = threading.Event()

    def client() -> None:
        while not ended.is_set():
            answers.append(answer())

    clients = [threading.Thread(target=client) for _ in range(2)]
    for each in clients:
        each.start()
    for each in (SECOND, FIRST, SECOND):
        service.apply(each)
    ended.set()
    for each in clients:
        each.join()
    assert len(answers) > 30
    assert set(answers) == {"first", "second"}


def test_a_request_that_began_before_a_reload_is_answered(service):
    service.apply(FIRST)
    with socket.create_connection(("127.0.0.1", 8080), timeout=10) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\n")
        get()  # the connection above was accepted before this one
        service.apply(SECOND)
        assert service.status().leaving == 1
        open_one.sendall(b"Host: a.test\r\nConnection: close\r\n\r\n")
        assert open_one.makefile("rb").read().endswith(b"first")


def test_the_same_again_does_nothing(service):
    service.apply(FIRST)
    before = HAPROXY.processes(service.folder)

    assert service.apply(FIRST).action is DeployAction.NOTHING
    assert HAPROXY.processes(service.folder) == before


def test_what_somebody_edited_is_mended(service):
    service.apply(FIRST)
    main = service.folder / "current" / "haproxy.cfg"
    main.write_text(main.read_text().replace("first", "edited"))

    assert service.apply(FIRST).action is DeployAction.RELOADED
    assert "edited" not in main.read_text()
    assert {get() for _ in range(10)} == {"first"}


@pytest.mark.parametrize("tested", [False, True])
def test_a_configuration_that_haproxy_refuses_changes_nothing(service, tested):
    service.apply(FIRST)

    with pytest.raises(ApplyError, match=rf"unknown keyword 'bogus'.*; release {FIRST.digest} is served as before"):
        service.apply(BROKEN, tested=tested)

    assert get() == "first"
    assert service.releases.live() == FIRST.digest
    assert service.apply(SECOND).action is DeployAction.RELOADED
    assert get() == "second"


def test_a_refused_first_configuration_leaves_nothing_running(service):
    with pytest.raises(ApplyError, match=r"bogus.*nothing is served"):
        service.apply(BROKEN, tested=True)

    assert HAPROXY.processes(service.folder) == ()
    assert not service.status().supervisor
    assert service.apply(FIRST).action is DeployAction.STARTED


def test_one_that_never_answers_its_digest_is_taken_back(service):
    service._confirm_s = 1
    service.apply(FIRST)
    main = SECOND.files["haproxy.cfg"].replace(SECOND.digest, "0" * 32)
    liar = type(SECOND)(files={"haproxy.cfg": main}, secrets=SECOND.secrets, digest=SECOND.digest)

    with pytest.raises(ApplyError, match=f"still serve '0000.*release {FIRST.digest} is served as before"):
        service.apply(liar)

    assert (get(), status.serves(service.folder)) == ("first", FIRST.digest)


def test_a_taken_port_is_reported_with_its_holder(service):
    with socket.create_server(("127.0.0.1", 8080)):
        with pytest.raises(HostError, match=rf"port 8080 is held by process {os.getpid()} \(.*python"):
            service.apply(FIRST, listens=[8080])
        with pytest.raises(ApplyError, match=f"port 8080 is held by process {os.getpid()}"):
            service.apply(FIRST)


def test_a_reload_that_finds_a_port_taken_goes_back(service):
    service.apply(FIRST)
    with socket.create_server(("0.0.0.0", 8081)), pytest.raises(ApplyError, match="port 8081 is held by process"):
        service.apply(configuration("other", port=8081))

    assert get() == "first"


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_a_killed_haproxy_is_replaced(service, eventually, victim):
    service.apply(FIRST)
    old = {process.pid for process in HAPROXY.processes(service.folder)}
    master = service.status().master
    (worker,) = process_list.workers(HAPROXY.processes(service.folder))

    os.kill(master if victim == "master" else worker.pid, signal.SIGKILL)

    eventually(lambda: status.serves(service.folder) == FIRST.digest and answer() == "first")
    eventually(lambda: not old & {process.pid for process in HAPROXY.processes(service.folder)})
    assert service.apply(SECOND).action is DeployAction.RELOADED
    assert get() == "second"


def test_haproxy_outlives_its_supervisor_and_the_next_one_adopts_it(service):
    service.apply(FIRST)
    before = service.status()
    os.kill(before.supervisor, signal.SIGKILL)
    assert soon(lambda: not Path(f"/proc/{before.supervisor}").exists())
    assert get() == "first"

    outcome = service.apply(FIRST)

    assert (outcome.action, outcome.notes) == (
        DeployAction.NOTHING,
        ("the supervisor had ended and was started again",),
    )
    after = service.status()
    assert (after.master, after.supervisor != before.supervisor) == (before.master, True)
    assert service.apply(SECOND).action is DeployAction.RELOADED


def test_an_apply_that_is_killed_at_any_moment_leaves_a_whole_release(service, tmp_path):
    program = (
        "import sys; from pathlib import Path; from rulegen.host.commands.runner import run;"
        "from rulegen.host.haproxy.program import HAPROXY; from rulegen.host.proxy.service import ProxyService;"
        "from tests.host.haproxy.examples import configuration;"
        "ProxyService(Path(sys.argv[1]), run, HAPROXY).apply(configuration('second'), tested=True)"
    )
    service.apply(FIRST)
    for after_s in (0.3, 0.45, 0.6, 0.8):
        other = subprocess.Popen([sys.executable, "-c", program, str(service.folder)], stderr=subprocess.DEVNULL)
        try:
            other.wait(after_s)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait()
        live = service.releases.current()
        assert live in (FIRST, SECOND)
        assert get() in {"first", "second"}
        service.apply(FIRST)
        assert get() == "first"


def test_generations_of_old_workers_are_capped(service):
    service.apply(FIRST)
    held = []
    for number in range(GENERATIONS + 2):
        connection = socket.create_connection(("127.0.0.1", 8080), timeout=10)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        held.append(connection)
        get()
        service.apply(configuration(f"body{number}"))

    result = service.status()
    assert result.leaving <= GENERATIONS
    assert get() == f"body{GENERATIONS + 1}"
    for connection in held:
        connection.close()


def test_drain_lets_open_requests_end_and_removes_the_folder(service):
    service.apply(FIRST)
    with socket.create_connection(("127.0.0.1", 8080), timeout=10) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\n")
        get()
        results: list[bool] = []
        ending = threading.Thread(target=lambda: results.append(service.drain(30, remove=True)))
        ending.start()
        while answer() is not None:
            pass
        open_one.sendall(b"Host: a.test\r\nConnection: close\r\n\r\n")
        assert open_one.makefile("rb").read().endswith(b"first")
        ending.join()
    assert results == [True]
    assert not service.folder.exists()
    assert HAPROXY.processes(service.folder) == ()


def test_drain_closes_connections_that_do_not_end(service):
    service.apply(FIRST)
    with socket.create_connection(("127.0.0.1", 8080), timeout=10) as open_one:
        open_one.sendall(b"GET / HTTP/1.1\r\n")
        get()
        assert service.drain(0.5) is False
    assert HAPROXY.processes(service.folder) == ()


def test_drain_ends_a_haproxy_that_is_just_starting(folder, namespace, eventually, tmp_path):
    """HAProxy forgets a SIGUSR1 that arrives while it starts: its master ignores the signal for a moment."""
    program, flag = tmp_path / "haproxy-script", tmp_path / "deaf"
    program.write_text(DEAF_SCRIPT.format(flag=flag))
    program.chmod(0o755)
    service = ProxyService(folder, run, HAPROXY, binary=str(program), confirm_s=10)
    service.apply(FIRST, tested=True)
    flag.touch()
    os.kill(service.status().master, signal.SIGKILL)
    eventually(flag.with_suffix(".seen").exists)

    results: list[bool] = []
    ending = threading.Thread(target=lambda: results.append(service.drain(8)))
    ending.start()
    journal = folder / "logs" / "keeper.log"
    eventually(lambda: "after its current requests" in journal.read_text())
    flag.unlink()

    ending.join()
    assert results == [True]
    assert not service.runs()


def test_a_file_that_somebody_changed_in_place_is_not_taken_over(folder, namespace):
    """The folder of the next release shares it."""
    service = ProxyService(folder, run, HAPROXY, confirm_s=10, keeps_spare=True)
    service.apply(FIRST)
    (folder / "current" / "haproxy.cfg").write_text("# what others wrote\n")

    assert service.update(FIRST, lambda: True) is not None
    assert service.releases.current() == FIRST


class MissedReload(HaproxyProgram):
    """HAProxy as it is in some milliseconds of its start: the first request to reload does nothing."""

    asked = 0

    @property
    def reload(self) -> signal.Signals:
        self.asked += 1
        return signal.SIGCONT if self.asked == 1 else signal.SIGUSR2


def test_a_reload_that_haproxy_has_missed_is_asked_for_again(folder, namespace):
    program = MissedReload()
    service = ProxyService(folder, run, program, confirm_s=10)
    service.apply(FIRST)

    assert service.apply(SECOND).action is DeployAction.RELOADED
    assert (get(), program.asked) == ("second", 2)
    assert service.status().generations == 1


def test_a_stopped_supervisor_is_replaced(service):
    service.apply(FIRST)
    stopped, before = supervision.supervisor_pid(service.folder), service.status()
    os.kill(stopped, signal.SIGSTOP)
    assert service.apply(FIRST).notes == ("the supervisor had ended and was started again",)
    assert service.status() == replace(before, supervisor=supervision.supervisor_pid(service.folder))
    stopped = supervision.supervisor_pid(service.folder)
    os.kill(stopped, signal.SIGSTOP)
    for process in HAPROXY.processes(service.folder):
        process_list.send(process, signal.SIGKILL)
    assert service.apply(SECOND).action is DeployAction.STARTED
    assert supervision.supervisor_pid(service.folder) not in {0, stopped}
    assert get() == "second"


@pytest.mark.parametrize("is_supervised", [True, False])
def test_a_stopped_master_ends_after_its_requests(service, eventually, is_supervised):
    service.apply(FIRST)
    if not is_supervised:
        os.kill(supervision.supervisor_pid(service.folder), signal.SIGKILL)
        eventually(lambda: not supervision.supervisor_pid(service.folder))
    stopped = process_list.master(HAPROXY.processes(service.folder))
    os.kill(stopped.pid, signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", 8080), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        ending = threading.Thread(target=service.drain, args=(20,))
        ending.start()
        eventually(lambda: answer() is None)
        client.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
        assert b"first" in b"".join(iter(lambda: client.recv(4096), b""))
    ending.join(15)
    assert not ending.is_alive()
    assert not service.runs()


class ForgetfulProgram(HaproxyProgram):
    """A program that is one process, which forgets the first request to end."""

    def __init__(self, pid: int) -> None:
        self._process = process_list.ProxyProcess(pid, process_list.started(pid), 0, process_list.Role.MASTER)

    def processes(self, folder: Path) -> tuple[process_list.ProxyProcess, ...]:
        is_running = process_list.started(self._process.pid) == self._process.started
        return (self._process,) if is_running else ()


def test_without_a_supervisor_a_program_is_asked_again_to_end(tmp_path):
    text = "trap 'trap - USR1' USR1; echo; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert ProxyService(tmp_path, run, ForgetfulProgram(program.pid)).drain(8)
        assert program.wait() == -signal.SIGUSR1


def test_a_folder_that_others_may_write_to_is_not_used(service):
    service.folder.mkdir(mode=0o777)
    service.folder.chmod(0o777)

    with pytest.raises(HostError, match=r"the folder of haproxy cannot be used: .* may be written to by others"):
        service.apply(FIRST)

    assert HAPROXY.processes(service.folder) == ()


@pytest.mark.parametrize("place", ["run/master.sock", "run/keeper.pid", "logs/start.log", "current", "releases"])
def test_a_link_in_the_folder_leads_nowhere(service, tmp_path, place):
    service.releases.prepare()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    target = service.folder / place
    if target.is_dir():
        target.rmdir()
    target.symlink_to(outside if place in {"current", "releases"} else outside / "kept")

    try:
        service.apply(FIRST)
    except HostError:
        assert HAPROXY.processes(service.folder) == ()
    else:
        assert get() == "first"
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_without_the_socket_of_its_master_haproxy_is_started_anew(service):
    service.apply(FIRST)
    (service.folder / "run" / status.SOCKET).unlink()

    assert service.apply(SECOND).action is DeployAction.STARTED
    assert get() == "second"


def test_a_supervisor_that_is_ending_is_not_of_other_code(folder, monkeypatch):
    ended = subprocess.Popen(["true"])
    assert soon(lambda: Path(f"/proc/{ended.pid}/stat").read_text().rpartition(") ")[2][0] == "Z", 10)
    monkeypatch.setattr(supervision, "supervisor_pid", lambda _: ended.pid)
    monkeypatch.setattr(supervision, "tell", lambda *_: pytest.fail("it was asked to leave"))
    assert not supervision.renew(folder, "haproxy", HAPROXY)
    ended.wait()
