"""Options that cannot be, or that leave nothing to do: said before anything is read, with what there is instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.backends.table import BACKENDS
from rulegen.cli.main import main
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.modes import MODES
from rulegen.kube.proxyconfig.validation import SCHEDULERS
from tests.cli.test_plan import BLOG, HOST

UNREAD = ("-f", "nowhere.yaml", "--host", "nowhere")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "host").write_text(HOST)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return call


@pytest.mark.parametrize("command", ["plan", "apply", "export", "run"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mode", "kernelspace"), "'kernelspace' is not one of 'iptables', 'ipvs'"),
        (("--mode", "ipvs", "--ipvs-scheduler", "foo"), "unknown scheduler 'foo'"),
        (("--ipvs-scheduler", "foo"), "--ipvs-scheduler: unknown scheduler 'foo'"),
        (("--annotations-prefix", ""), '"" is not a prefix of annotations, such as nginx.ingress.kubernetes.io'),
        (("--annotations-prefix", "nginx.ingress.kubernetes.io/"), "(without a slash)"),
        (("--annotations-prefix", "a b"), '"a b" is not a prefix of annotations'),
        (("--watch-namespace", "-"), '"-" is not the name of a namespace'),
        (("--watch-namespace", "Shop"), '"Shop" is not the name of a namespace'),
        (("--ingress-class", ""), '"" is not a class of Ingresses'),
        (("--controller-class", ""), '"" is not a controller, such as rulegen.io/ingress'),
        (("--detect-local-mode", "BridgeInterface"), "--pod-bridge-interface: must not be empty"),
        (("--cluster-cidr", "10.0.0.0/8,10.0.0.0/9"), "two prefixes of one family"),
        (("--http-port", "443", "--https-port", "443"), "--http-port and --https-port are both 443"),
        (("--https-port", "80"), "--http-port and --https-port are both 80"),
        (("--http-port", "0"), "0 is not in the range 1<=x<=65535"),
        (("--nginx-dir", ""), "'' is not a folder"),
        (("--node", "a_b"), "cannot be the name of a Node"),
        (("--ipvs-tcp-timeout", "soon"), '"soon" is not a duration'),
    ],
)
def test_an_invalid_option_is_reported_before_reading(run, command, words, said):
    of_ingress = {"--http-port", "--https-port", "--nginx-dir"}
    if command == "export" and words[0] in of_ingress:
        pytest.skip("export has no such option" if words[0] == "--nginx-dir" else "the same option")
    files = UNREAD if command != "run" else ()
    where = ("-o", "out") if command == "export" else ()
    code, out, err = run(command, *files, *where, *words)
    assert (code, out) == (1, "")
    assert said in err
    assert "nowhere" not in err


def test_an_unknown_scheduler_is_answered_with_those_there_are(run):
    _, _, err = run("plan", *UNREAD, "--mode", "ipvs", "--ipvs-scheduler", "foo")
    assert f"Next: use one of: {', '.join(sorted(SCHEDULERS))}" in err
    Path("config").write_text(f"apiVersion: {API_VERSION}\nkind: {KIND}\nipvs: {{scheduler: foo}}\n")
    files = ("-f", "blog.yaml", "--host", "host", "--observed", "none", "--config", "config")
    assert run("plan", *files)[0] == 0
    assert "config: ipvs.scheduler" in run("plan", *files, "--mode", "ipvs")[2]
    assert "--ipvs-scheduler: unknown" in run("plan", *files, "--mode", "ipvs", "--ipvs-scheduler", "bar")[2]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_of_linux_is_known(run, scheduler):
    words = ("--mode", "ipvs", "--ipvs-scheduler", scheduler)
    assert run("plan", "-f", "blog.yaml", "--host", "host", "--observed", "none", *words)[0] == 0


def test_the_modes_that_are_offered_are_those_there_are():
    assert set(MODES) == set(BACKENDS)


@pytest.mark.parametrize(
    ("words", "verb"),
    [(("plan", *UNREAD), "compare"), (("apply", *UNREAD), "apply"), (("cleanup",), "remove"), (("run",), "keep")],
)
def test_neither_services_nor_ingresses_leaves_nothing_to_do(run, words, verb):
    code, out, err = run(*words, "--no-services")
    assert (code, out) == (1, "")
    assert f"--no-services without --ingress: then there is nothing to {verb}" in err
    assert "Next: add --ingress" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--http-port", "10256"), "--http-port 10256 is the port of --health-address (0.0.0.0:10256)"),
        (("--https-port", "10249"), "--https-port 10249 is the port of --metrics-address (127.0.0.1:10249)"),
        (("--metrics-address", "[::1]:443"), "--https-port 443 is the port of --metrics-address ([::1]:443)"),
    ],
)
def test_nginx_and_the_agent_do_not_share_a_port(run, words, said):
    code, out, err = run("run", "--ingress", "--kubeconfig", "nowhere", "--host", "host", *words)
    assert (code, out) == (1, "")
    assert said in err


@pytest.mark.parametrize("name", ["metrics.example:10249", "http://metrics.example", "", "a b"])
def test_a_host_for_metrics_is_a_name(run, name):
    code, out, err = run("run", "--kubeconfig", "nowhere", "--metrics-host", name)
    assert (code, out) == (1, "")
    assert f"--metrics-host: {name!r} is not a DNS name" in err
    assert "Next: give a name without port" in err
