"""The agent's life: systemd's watchdog, changed files, and the parameters of connection tracking."""

from __future__ import annotations

import gc
import io
import os
import queue
import signal
import socket
import threading
import time
import weakref

import pytest
from click.testing import CliRunner

from rulegen.agent.agent import Agent
from rulegen.agent.ingress.sync import IngressSync
from rulegen.agent.runtime.memory import YOUNG, enable_gc, trim
from rulegen.agent.runtime.signals import Signals
from rulegen.agent.runtime.systemd import Watchdog, notify_systemd
from rulegen.agent.telemetry.log import AgentLog
from rulegen.agent.telemetry.state import AgentState
from rulegen.cli.main import cli
from rulegen.errors import HostError
from rulegen.host.files.watch import FileChanges
from rulegen.host.node import sysctl
from rulegen.host.node.listening_ports import listening_ports
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.languages.nginx.facts import NginxFacts
from rulegen.model.host.conntrack_limits import conntrack_parameters
from rulegen.model.services.options import Options
from tests.agent.ingress.test_site import MemorySite
from tests.apiserver.watching import soon


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """What systemd hears."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(path)
        ear.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield ear


class TestWatchdog:
    def test_systemd_is_notified_while_changes_get_through(self, systemd, monkeypatch):
        """Systemd hears that we live as long as changes get through."""
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        works = threading.Event()
        watchdog = Watchdog(works.is_set)
        watchdog.start()
        try:
            systemd.settimeout(0.2)
            with pytest.raises(TimeoutError):
                systemd.recv(100)
            works.set()
            systemd.settimeout(5)
            assert systemd.recv(100) == b"WATCHDOG=1"
        finally:
            watchdog.stop()

    @pytest.mark.parametrize(("period", "pid"), [("", ""), ("0", ""), ("x", ""), ("1000", "1")])
    def test_without_notify_socket_nothing_is_sent(self, systemd, monkeypatch, period, pid):
        monkeypatch.setenv("WATCHDOG_USEC", period)
        monkeypatch.setenv("WATCHDOG_PID", pid)
        before = threading.active_count()
        watchdog = Watchdog(lambda: True)
        watchdog.start()
        assert threading.active_count() == before
        watchdog.stop()

    def test_an_address_in_the_abstract_space(self, monkeypatch):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
            ear.bind(f"\0rulegen-test-{os.getpid()}")
            ear.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", f"@rulegen-test-{os.getpid()}")
            notify_systemd("READY=1")
            assert ear.recv(100) == b"READY=1"


class Ear:
    """Stands in for an agent: it is woken up."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.signals: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wake_up(self, why: str = "") -> None:
        self.heard += [why] if why else []
        self.signals.put(why)


class TestSignals:
    def test_a_stop_during_a_reload_is_for_the_next_agent(self):
        """An end that comes while an agent ends to begin anew is for the next."""
        first, second = Ear(), Ear()
        with Signals() as signals:
            signals.hand_to(first)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            signals.hand_to(None)
            signals.hand_to(second)
        assert (first.heard, second.heard) == (["reload", "stop"], ["stop"])

    def test_a_signal_between_two_agents_is_for_the_next(self):
        """One that comes between two ends nobody and is for the next."""
        first, second = Ear(), Ear()
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signals.hand_to(first)
            signals.hand_to(second)
        assert (first.heard, second.heard) == (["reload"], [])

    def test_one_that_another_thread_is_given_ends_the_wait_at_once(self):
        """So the kernel does with the second of two: the main thread, which is to take it, sleeps on."""
        ear, waits = Ear(), threading.Event()

        def be_given() -> None:
            waits.wait(10)
            time.sleep(0.1)  # whoever waits has nothing more to do that would have it look
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            time.sleep(0.1)

        thread = threading.Thread(target=be_given)
        thread.start()
        try:
            with Signals() as signals:
                signals.hand_to(ear)
                waits.set()
                while ear.signals.get(timeout=10) != "stop":
                    pass
        finally:
            thread.join()
        assert ear.heard == ["stop"]

    def test_nothing_of_it_is_left(self):
        before = threading.active_count(), signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before[2])
        with Signals():
            pass
        after = threading.active_count(), signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(after[2])
        assert after == before


class _Ring:
    def __init__(self) -> None:
        self.itself = self


def test_what_only_refers_to_itself_does_not_pile_up():
    before, was_on = gc.get_threshold(), gc.isenabled()
    gc.disable()
    try:
        enable_gc()
        trim()  # the first check is over
        rings = [weakref.ref(_Ring()) for _ in range(5 * YOUNG)]
        assert sum(ring() is not None for ring in rings) < 2 * YOUNG
    finally:
        gc.set_threshold(*before)
        (gc.enable if was_on else gc.disable)()


class TestFileChanges:
    @pytest.fixture
    def seen(self):
        return threading.Event()

    @pytest.fixture
    def look(self, seen):
        made = []

        def begin(*paths) -> FileChanges:
            changes = FileChanges(map(str, paths), period_s=0.02, settled_s=0.02)
            made.append(changes)
            changes.start(seen.set)
            return changes

        yield begin
        for notice in made:
            notice.stop()

    def test_a_file_that_is_written_in_place(self, tmp_path, look, seen):
        file = tmp_path / "config"
        file.write_text("a")
        look(file)
        file.write_text("b")
        assert seen.wait(5)

    def test_a_file_that_changes_before_anybody_looks(self, tmp_path, seen):
        file = tmp_path / "config"
        file.write_text("a")
        changes = FileChanges([str(file)], period_s=0.02, settled_s=0.02)
        file.write_text("b")
        changes.start(seen.set)
        try:
            assert seen.wait(5)
        finally:
            changes.stop()

    def test_a_config_map_of_which_links_are_moved(self, tmp_path, look, seen):
        for version in ("1", "2"):
            (tmp_path / f"..{version}").mkdir()
            (tmp_path / f"..{version}" / "config").write_text(version)
        (tmp_path / "..data").symlink_to("..1")
        (tmp_path / "config").symlink_to("..data/config")
        look(tmp_path / "config")
        (tmp_path / "..tmp").symlink_to("..2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        assert seen.wait(5)

    def test_a_file_that_is_away_for_a_moment_has_not_changed(self, tmp_path, look, seen):
        file = tmp_path / "config"
        file.write_text("a")
        look(file)
        file.rename(tmp_path / "away")
        assert not seen.wait(0.2)
        (tmp_path / "away").rename(file)
        assert not seen.wait(0.2)
        file.unlink()
        file.write_text("b")
        assert seen.wait(5)

    def test_a_folder_of_templates(self, tmp_path, look, seen):
        (tmp_path / "nginx.conf.j2").write_text("a")
        look(tmp_path)
        (tmp_path / "more.j2").write_text("b")
        assert seen.wait(5)

    def test_half_of_a_file_that_is_being_written_does_not_count(self, tmp_path):
        """Without its last lines, a configuration is one that can be read and restricts less."""
        file, read = tmp_path / "config", queue.SimpleQueue()
        file.write_text("mode: iptables\nnodePortAddresses: [primary]\n")
        changes = FileChanges([str(file)], period_s=0.02, settled_s=1.0)
        changes.start(lambda: read.put(file.read_text()))
        try:
            for length in range(1, 8):
                file.write_text("mode: ipvs\nnodePortAddresses: [primary]\n"[: 6 * length])
                time.sleep(0.03)
            assert read.get(timeout=30) == "mode: ipvs\nnodePortAddresses: [primary]\n"
            assert read.empty()
        finally:
            changes.stop()

    def test_a_callback_may_stop_watching_files(self, tmp_path, seen):
        file = tmp_path / "config"
        file.write_text("a")
        changes = FileChanges([str(file)], period_s=0.02, settled_s=0.02)
        changes.start(lambda: (changes.stop(), seen.set()))
        file.write_text("b")
        assert seen.wait(5)
        assert soon(lambda: not [thread for thread in threading.enumerate() if thread.name == "files"])


LEAVE = {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}


@pytest.mark.parametrize(
    ("conntrack", "cpus", "expected"),
    [
        ({}, 1, {"max": "131072", "tcp_timeout_established": "86400", "tcp_timeout_close_wait": "3600"}),
        ({}, 8, {"max": "262144", "tcp_timeout_established": "86400", "tcp_timeout_close_wait": "3600"}),
        ({}, 256, {"max": "1048576", "tcp_timeout_established": "86400", "tcp_timeout_close_wait": "3600"}),
        ({**LEAVE, "maxPerCore": 10, "min": 5}, 2, {"max": "20"}),
        ({**LEAVE, "maxPerCore": 10, "min": 2_000_000}, 2, {"max": "2000000"}),
        (LEAVE, 64, {}),
        (
            {**LEAVE, "udpTimeout": "10s", "udpStreamTimeout": "2m", "tcpBeLiberal": True},
            1,
            {"udp_timeout": "10", "udp_timeout_stream": "120", "tcp_be_liberal": "1"},
        ),
    ],
)
def test_connection_tracking_is_set_up_as_kube_proxy_does(conntrack, cpus, expected):
    config, _ = read_config({"apiVersion": API_VERSION, "kind": KIND, "conntrack": conntrack}, "test")
    parameters = conntrack_parameters(Options.of(config).conntrack, cpus)
    assert parameters == {f"net.netfilter.nf_conntrack_{name}": value for name, value in expected.items()}


def test_ports_that_others_can_be_reached_at_are_known():
    with (
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as loopback_6,
    ):
        ports = listening_ports()
        assert ("TCP", everywhere.getsockname()[1]) in ports
        assert not {("TCP", listening.getsockname()[1]) for listening in (loopback, loopback_6)} & ports


class TestModuleParameter:
    @pytest.fixture
    def parameter(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sysctl, "_MODULES", tmp_path)
        path = tmp_path / "nf_conntrack" / "parameters" / "hashsize"
        path.parent.mkdir(parents=True)
        path.write_text("4096\n")
        return path

    @pytest.mark.parametrize(("least", "expected"), [(8192, "8192\n"), (4096, "4096\n"), (100, "4096\n")])
    def test_it_is_raised_and_never_lowered(self, parameter, least, expected):
        sysctl.raise_module_parameter("nf_conntrack/hashsize", least)
        assert parameter.read_text() == expected

    def test_one_that_is_not_there_is_none_to_set(self, parameter):
        sysctl.raise_module_parameter("nf_conntrack/other", 5)
        assert not parameter.with_name("other").exists()

    def test_an_unreadable_file_is_reported(self, parameter):
        parameter.write_text("many")
        with pytest.raises(HostError, match="module parameter nf_conntrack/hashsize = 5"):
            sysctl.raise_module_parameter("nf_conntrack/hashsize", 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--publish-status-address", "a b"), "'a b' is neither an address nor a name"),
        (("--publish-status-address", "10.0.0.1,"), "'' is neither"),
        (("--lease-namespace", "a/b"), "'a/b' is not the name of a namespace"),
        (("--mode", "netfilter"), "netfilter"),
        (("--publish-service-status", "--no-services"), "exclude each other"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_begun(words, message):
    done = CliRunner().invoke(cli, ["run", "--kubeconfig", "/nowhere", *words])
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output


def test_unreadable_templates_stop_no_agent(tmp_path, monkeypatch):
    """A node is not given up for templates that cannot be read."""
    facts = NginxFacts(version=(1, 22, 1), user="", group="")
    monkeypatch.setattr("rulegen.cli.engines.nginx.program.gather_nginx", lambda *_, **__: facts)
    template = tmp_path / "nginx.conf.j2"
    template.write_text("as it was")
    seen = []

    def serve(agent: Agent) -> str:
        seen.append(agent.site.templates)
        template.write_bytes(b"\xff")
        return "reload" if len(seen) == 1 else "stop"

    monkeypatch.setattr(Agent, "run", serve)
    done = CliRunner().invoke(cli, ["run", "--ingress", "--nginx-templates", str(tmp_path)])
    assert (done.exit_code, done.exception) == (0, None)
    assert seen[0] == seen[1]


def test_a_fault_of_ours_does_not_end_who_serves_ingresses(monkeypatch):
    monkeypatch.setattr("rulegen.agent.ingress.sync.BREATH_S", 0.01)
    monkeypatch.setattr("rulegen.agent.ingress.sync.QUIET_S", 0.01)
    served, faults = threading.Event(), iter([KeyError("a fault of ours"), OSError(28, "No space left on device")])

    def serve(_: IngressSync) -> bool:
        if (fault := next(faults, None)) is not None:
            raise fault
        served.set()
        return True

    monkeypatch.setattr(IngressSync, "serve", serve)
    log = io.StringIO()
    state = AgentState(time.monotonic)
    site = IngressSync(MemorySite(), None, None, state, AgentLog(out=log), time.monotonic)
    site.start()
    try:
        assert served.wait(10)
    finally:
        site.stop()
    assert state.metrics.site_failures.value == 2
    assert "KeyError: 'a fault of ours'" in log.getvalue()
