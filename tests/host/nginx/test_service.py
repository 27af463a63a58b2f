"""Serving: what was asked for is served, or what was served before still is, whatever dies in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from pathlib import Path

import pytest

from rulegen.compiler.ingress.engine import DeployAction
from rulegen.compiler.ingress.refused_ingresses import settle
from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import find
from rulegen.host.nginx.program import NGINX
from rulegen.host.nginx.status import ask
from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.processes import supervision
from rulegen.host.proxy.service import GENERATIONS
from tests.host.nginx.examples import configuration, name, server

FIRST = configuration({"a.test": server("a.test", body="first")})
SECOND = configuration({"a.test": server("a.test", body="second")})
BROKEN = configuration({"a.test": server("a.test", extra="bogus on;")})


def get(port: int = 8080, timeout_s: float = 5) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=timeout_s) as answer:
        return answer.read().decode()


def answer() -> str | None:
    """Return what a client gets; None where it gets nothing."""
    try:
        return get(timeout_s=1)
    except OSError:
        return None


def slow(bytes_per_s: int) -> str:
    return f'location /slow {{ limit_rate {bytes_per_s}; return 200 "{"x" * 3000}"; }}'


def test_the_first_apply_starts_nginx(service):
    outcome = service.apply(FIRST, listens=[8080])

    assert (outcome.action, outcome.digest, get()) == (DeployAction.STARTED, FIRST.digest, "first")
    status = service.status()
    assert status.master
    assert status.supervisor
    assert (status.digest, status.workers, status.generations) == (FIRST.digest, 2, 1)


def test_all_new_connections_have_a_change_when_apply_returns(service):
    service.apply(FIRST)
    master = service.status().master

    outcome = service.apply(SECOND)

    assert outcome.action is DeployAction.RELOADED
    assert {get() for _ in range(30)} == {"second"}
    assert service.status().master == master


def pids(result: tuple[processes.ProxyProcess, ...]) -> set[int]:
    """Without the roles: a worker that has just begun is named like its master for a moment."""
    return {process.pid for process in result}


def test_the_same_again_does_nothing(service):
    service.apply(FIRST)
    before = NGINX.processes(service.folder)

    assert service.apply(FIRST).action is DeployAction.NOTHING
    assert pids(before) <= pids(NGINX.processes(service.folder))  # a worker may just have begun


def test_what_somebody_edited_is_mended(service):
    service.apply(FIRST)
    (service.folder / "current" / name("a.test")).write_text(server("a.test", body="edited"))
    processes.send(processes.master(NGINX.processes(service.folder)), signal.SIGHUP)

    assert service.apply(FIRST).action is DeployAction.RELOADED
    assert {get() for _ in range(10)} == {"first"}


@pytest.mark.parametrize("tested", [False, True])
def test_a_configuration_that_nginx_refuses_changes_nothing(service, tested):
    service.apply(FIRST)
    before = NGINX.processes(service.folder)

    with pytest.raises(ApplyError, match=rf'unknown directive "bogus" in hosts/\w+.conf:4; release {FIRST.digest} is'):
        service.apply(BROKEN, tested=tested)

    assert get() == "first"
    assert pids(before) <= pids(NGINX.processes(service.folder))  # a worker may just have begun
    assert service.releases.live() == FIRST.digest
    assert service.apply(SECOND).action is DeployAction.RELOADED


def test_a_refused_first_configuration_leaves_nothing_running(service):
    with pytest.raises(ApplyError, match=r"bogus.*nothing is served"):
        service.apply(BROKEN, tested=True)

    assert NGINX.processes(service.folder) == ()
    assert not service.status().supervisor
    assert service.apply(FIRST).action is DeployAction.STARTED


def test_one_that_never_answers_its_digest_is_taken_back(service):
    service._confirm_s = 1
    service.apply(FIRST)
    main = SECOND.files["nginx.conf"].replace(SECOND.digest, "0" * 32)
    liar = type(SECOND)(files={**SECOND.files, "nginx.conf": main}, digest=SECOND.digest)

    with pytest.raises(ApplyError, match=f"still serve '0000.*release {FIRST.digest} is served as before"):
        service.apply(liar)

    assert (get(), ask(service.folder)) == ("first", FIRST.digest)


def test_a_taken_port_is_reported_first_with_its_holder(service):
    with socket.create_server(("127.0.0.1", 8080)):
        with pytest.raises(HostError, match=rf"port 8080 is held by process {os.getpid()} \(.*python") as caught:
            service.apply(FIRST, listens=[8080])
        assert "--http-port" in caught.value.hint
        assert not service.releases.live()


def test_a_port_taken_at_start_is_reported_with_its_owner(service):
    with socket.create_server(("127.0.0.1", 8080)), pytest.raises(ApplyError, match=f"held by process {os.getpid()}"):
        service.apply(FIRST)


def test_a_reload_that_finds_a_port_taken_goes_back(service):
    service.apply(FIRST)
    with socket.create_server(("127.0.0.1", 8081)), pytest.raises(ApplyError, match="port 8081 is held by process"):
        service.apply(configuration({"a.test": server("a.test", port=8081)}))

    assert get() == "first"


def test_a_killed_master_is_replaced_and_no_connection_refused(service, eventually):
    service.apply(FIRST)
    old = {process.pid for process in NGINX.processes(service.folder)}
    answers = []

    os.kill(service.status().master, signal.SIGKILL)

    def all_new() -> bool:
        answers.append(answer())
        now = NGINX.processes(service.folder)
        return processes.master(now) is not None and not old & {process.pid for process in now}

    eventually(all_new)
    answers += [answer() for _ in range(20)]
    assert set(answers) == {"first"}
    assert ask(service.folder) == FIRST.digest
    assert service.apply(SECOND).action is DeployAction.RELOADED


SUPERVISOR_THAT_LOSES = """
    import os, signal, sys, time
    from pathlib import Path
    from rulegen.host.nginx.program import NGINX
    from rulegen.host.proxy import process_list as processes
    from rulegen.host.proxy.processes import supervisor

    folder, look, looks = Path(sys.argv[1]), NGINX.processes, []

    def look_and_lose(folder):
        found = look(folder)
        looks.append(processes.master(found))
        if len(looks) == 2:  # the first one finds it, this one sees its workers at work
            os.kill(looks[1].pid, signal.SIGKILL)
            while processes.master(look(folder)):
                time.sleep(0.001)
        return found

    NGINX.processes = look_and_lose
    it = supervisor.Supervisor(folder, sys.argv[2], supervisor.Held.of(folder), NGINX)
    it.listen()
    it.keep()
"""


def test_a_master_that_dies_while_it_is_looked_at_is_replaced(service, eventually):
    service.apply(FIRST)
    supervision.tell(service.folder, signal.SIGUSR2)
    eventually(lambda: not service.status().supervisor)
    first, answers = service.status().master, []

    def replaced() -> bool:
        answers.append(answer())
        now = NGINX.processes(service.folder)
        new = processes.master(now)
        return new is not None and new.pid != first and not processes.orphans(now)

    code = textwrap.dedent(SUPERVISOR_THAT_LOSES)
    with subprocess.Popen([sys.executable, "-c", code, str(service.folder), str(find("nginx"))]) as supervisor:
        eventually(replaced)
        answers += [answer() for _ in range(20)]
        supervisor.send_signal(signal.SIGUSR2)
        assert supervisor.wait(10) == 0
    assert set(answers) == {"first"}


def test_a_killed_worker_is_replaced(service, eventually):
    service.apply(FIRST)
    worker = processes.workers(NGINX.processes(service.folder))[0]

    processes.send(worker, signal.SIGKILL)

    eventually(
        lambda: worker not in (result := NGINX.processes(service.folder)) and len(processes.workers(result)) == 2
    )
    assert get() == "first"


def test_a_new_supervisor_adopts_the_running_nginx(service, eventually):
    service.apply(FIRST)
    status = service.status()
    os.kill(status.supervisor, signal.SIGKILL)
    eventually(lambda: not service.status().supervisor)
    assert get() == "first"

    outcome = service.apply(FIRST)

    assert outcome.action is DeployAction.NOTHING
    assert outcome.notes == ("the supervisor had ended and was started again",)
    assert service.status().master == status.master
    os.kill(status.master, signal.SIGKILL)
    eventually(lambda: service.status().master not in {0, status.master} and answer() == "first")


def test_after_an_upgrade_the_supervisor_runs_the_new_code(service, eventually, monkeypatch):
    monkeypatch.setattr(supervision, "code", lambda _module: "before")
    service.apply(FIRST)
    old = service.status()
    monkeypatch.undo()

    outcome, new = service.apply(FIRST), service.status()

    assert outcome.notes == ("the supervisor ran another version of rulegen and was replaced",)
    assert new.supervisor not in {0, old.supervisor}
    assert new.master == old.master
    assert get() == "first"
    assert service.apply(FIRST).notes == ()
    os.kill(new.master, signal.SIGKILL)
    eventually(lambda: service.status().master not in {0, new.master} and answer() == "first")


def test_all_killed_at_once(service, eventually):
    service.apply(FIRST)
    status = service.status()
    os.kill(status.supervisor, signal.SIGKILL)
    os.kill(status.master, signal.SIGKILL)
    eventually(lambda: not service.status().supervisor)
    assert get() == "first", "orphans serve on"

    service.apply(SECOND)

    assert {get() for _ in range(10)} == {"second"}


def test_a_node_down_before_the_proof_comes_up_with_what_worked(service, eventually):
    service.apply(FIRST)
    service.drain(5)
    service.releases.write(BROKEN)
    service.releases.switch(BROKEN.digest)

    supervision.ensure(service.folder, "nginx", NGINX)

    eventually(lambda: ask(service.folder) == FIRST.digest)
    assert service.releases.live() == FIRST.digest


def test_drain_lets_a_slow_request_finish(service):
    service.apply(configuration({"a.test": server("a.test", extra=slow(2000))}))
    got: list[int] = []
    with urllib.request.urlopen("http://127.0.0.1:8080/slow") as answering:
        answering.read(1)
        reader = threading.Thread(target=lambda: got.append(len(answering.read())))
        reader.start()

        assert service.drain(15)

        reader.join()
    assert got == [2999]
    assert service.status() == type(service.status())(0, 0, "", 0, 0, 0)


def test_drain_cuts_what_lasts_too_long(service):
    endless = server("a.test", extra=slow(100))
    service.apply(configuration({"a.test": endless}))
    with urllib.request.urlopen("http://127.0.0.1:8080/slow"):
        assert not service.drain(0.3, remove=True)

    assert not service.folder.exists()
    assert service.drain()


def test_generations_of_old_workers_are_capped(service):
    lasting = [configuration({"a.test": f"# {i}\n" + server("a.test", extra=slow(500))}, workers=1) for i in range(7)]
    service.apply(lasting[0])
    open_connections, notes = [], []
    for each in lasting[1:]:
        open_connections.append(urllib.request.urlopen("http://127.0.0.1:8080/slow"))
        notes += service.apply(each).notes

    assert service.status().generations <= GENERATIONS + 1
    assert any("old workers were ended" in note for note in notes)
    for connection in open_connections:
        connection.close()


def test_one_bad_host_of_many_is_quarantined(service):
    hosts = {f"h{i}.test": server(f"h{i}.test", extra="return 200 $nowhere;" if i == 5 else "") for i in range(12)}

    def suspects(message: str) -> list[str]:
        return [host for host in hosts if name(host) in message]

    settled = settle(
        list(hosts),
        lambda without: configuration({host: text for host, text in hosts.items() if host not in without}),
        lambda candidate: service.test(candidate).message,
        suspects,
        program="nginx",
    )
    service.apply(settled.configuration, tested=True)

    assert dict(settled.quarantined) == {"h5.test": 'unknown "nowhere" variable'} or "h5.test" in settled.quarantined
    assert len(settled.configuration.files) == 12


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from rulegen.host.nginx.service import NginxService
    from rulegen.host.commands.runner import run
    from tests.host.nginx.test_service import SECOND

    left = int(sys.argv[2])

    def dying(function, counts=lambda *_: True):
        def call(*args, **options):
            global left
            left -= counts(*args)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return call

    changes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    os.open = dying(os.open, lambda _path, flags, *_: bool(flags & changes))
    for word in ("write", "link", "mkdir", "rename", "replace", "symlink", "unlink", "rmdir", "chmod", "fchmod"):
        setattr(os, word, dying(getattr(os, word)))
    signal.pidfd_send_signal = dying(signal.pidfd_send_signal)
    NginxService(Path(sys.argv[1]), run).apply(SECOND, tested=True)
    print("done")
    """
)


@pytest.mark.slow
def test_killed_at_any_moment_a_switch_is_whole_and_completed(service):
    for moment in range(0, 60, 3):
        service.apply(FIRST)
        service.releases.discard(SECOND.digest)
        argv = [sys.executable, "-c", KILLED, str(service.folder), str(moment)]
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])

        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
        current = service.releases.current()
        assert current is not None
        wanted = FIRST if current.digest == FIRST.digest else SECOND
        assert dict(current.files) == dict(wanted.files)
        assert get() in {"first", "second"}
        service.apply(SECOND)
        assert get() == "second"
        if "done" in ended.stdout:
            break
    else:
        pytest.fail("the switch has more moments than were tried")


FULL = textwrap.dedent(
    """
    import ctypes, os, sys, urllib.request
    from pathlib import Path
    from rulegen.errors import HostError
    from rulegen.host.nginx.service import NginxService
    from rulegen.host.commands.runner import run
    from tests.host.nginx.test_service import FIRST, SECOND, get

    os.system("ip link set lo up")
    disk = Path(sys.argv[1]) / "disk"
    disk.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, b"size=1m,mode=755") == 0
    service = NginxService(disk / "nginx", run)
    try:
        service.apply(FIRST)
        with open(disk / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        try:
            service.apply(SECOND)
        except HostError as error:
            told = "No space left on device" in error.message and FIRST.digest in error.message
            print("told" if told else error.message)
        print(get(), service.status().digest == FIRST.digest)
        os.kill(service.status().supervisor, 9)
        os.kill(service.status().master, 9)
        try:
            while service.status().supervisor:
                pass
            print(service.apply(FIRST).action.name, get())
        except HostError as error:
            print(error.message, get())
        (disk / "filler").unlink()
        print(service.apply(SECOND).digest == SECOND.digest, get())
    finally:
        print(service.drain(5, remove=True))
    """
)


@pytest.mark.slow
def test_a_full_disk_serves_on_and_recovers_with_free_space(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    argv = ["unshare", "--mount", "--net", sys.executable, "-c", FULL, str(tmp_path)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])

    lines = ended.stdout.splitlines()
    assert lines[:2] == ["told", "first True"], (lines, ended.stderr)
    assert "keeper.pid: No space left on device; no space is left: the file system" in lines[2], lines
    assert lines[2].endswith(" first"), lines
    assert lines[3:] == ["True second", "True"], (lines, ended.stderr)
