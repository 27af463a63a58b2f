"""Commands that are given the arguments of ingress-nginx: taken, and what has no effect is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from rulegen.cli.commands import run as run_module
from rulegen.cli.commands.run import command as run
from rulegen.cli.main import cli, main
from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.values.without_effect.flags import FLAGS

OBJECTS = """\
apiVersion: v1
kind: Service
metadata: {name: blog, namespace: demo}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site, namespace: demo}
spec:
  ingressClassName: nginx
  rules:
  - host: site.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: blog, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: rest, namespace: demo}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: blog, port: {number: 80}}}
"""
ENDPOINTS = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: blog-1, namespace: demo, labels: {kubernetes.io/service-name: blog}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [10.244.1.1]}]
"""
PLAN = (
    "plan",
    "--ingress",
    "--no-services",
    "-f",
    "objects.yaml",
    "--observed",
    "none",
    "--host",
    "host",
    "-o",
    "json",
)


@pytest.fixture
def reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("objects.yaml").write_text(OBJECTS)
    Path("host").write_text("host: {hostname: node1, interfaces: []}\n")

    def read(*flags: str) -> list[str]:
        with pytest.raises(SystemExit) as stop:
            main([*PLAN, *flags])
        printed = capsys.readouterr()
        assert stop.value.code == 0, printed.err
        given = json.loads(printed.out)["ingress"]["reasons"]
        return [f"{reason['ingress'] or ''} {reason['path']}: {reason['message']}" for reason in given]

    return read


TAKEN = ("--ingress-class=nginx", "--controller-class=k8s.io/ingress-nginx")
CHART = (
    "--publish-service=ingress-nginx/ingress-nginx-controller",
    "--election-id=ingress-nginx-leader",
    *TAKEN,
    "--validating-webhook-certificate=/usr/local/certificates/cert",
    "--watch-ingress-without-class=true",
    "--enable-metrics=false",
    "--disable-svc-external-name=false",
)


def test_the_arguments_of_the_chart_are_taken(reasons) -> None:
    said = [line for line in reasons(*CHART) if "--" in line]
    assert [line.split(":")[0].strip() for line in said] == [
        "--election-id",
        "--publish-service",
        "--validating-webhook-certificate",
    ]


@pytest.mark.parametrize("flags", [("--tcp-services-configmap=a/b",), ("--tcp-services-configmap", "a/b")])
def test_a_flag_that_asks_for_what_is_not_done_is_reported(reasons, flags) -> None:
    (line,) = [line for line in reasons(*TAKEN, *flags) if "--tcp" in line]
    assert "not supported: nothing listens for TCP and UDP Services" in line


def test_without_catch_all_a_default_backend_is_not_served(reasons) -> None:
    assert not [line for line in reasons(*TAKEN) if "disable-catch-all" in line]
    for flag in ("--disable-catch-all", "--disable-catch-all=true"):
        (line,) = [line for line in reasons(*TAKEN, flag) if "disable-catch-all" in line]
        assert line.startswith("demo/rest spec.defaultBackend:")
    assert not [line for line in reasons(*TAKEN, "--disable-catch-all=false") if "disable-catch-all" in line]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--watch-ingress-without-class=maybe",), "neither true nor false"),
        (("--no-such-flag=1",), "No such option"),
        (("--election-idd=1",), "No such option"),
    ],
)
def test_what_nobody_knows_is_an_error(tmp_path, monkeypatch, capsys, flags, said) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*PLAN, *flags])
    assert stop.value.code == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"update_status": True, "update_status_on_shutdown": True, "no_events": False}),
        (("--update-status=false",), {"update_status": False}),
        (("--update-status=true",), {"update_status": True}),
        (("--update-status-on-shutdown=false",), {"update_status_on_shutdown": False}),
        (("--disable-sync-events=true",), {"no_events": True}),
        (("--disable-sync-events=false",), {"no_events": False}),
        (("--disable-sync-events",), {"no_events": True}),
        (("--report-node-internal-ip-address=true",), {"report_node_internal_ip_address": True}),
        (("--publish-service=edge/front",), {"publish_service": ObjectName("edge", "front")}),
    ],
)
def test_each_flag_means_what_it_meant(flags, expected) -> None:
    given = parameters(*flags)
    assert {name: given[name] for name in expected} == expected
    assert given["flag_reports"] == ()


def parameters(*flags: str) -> dict[str, Any]:
    """Return what `rulegen run` is called with."""
    group = cli.make_context("rulegen", ["run"])  # click keeps the names of the first help option that it makes
    return dict(run.make_context("run", list(flags), parent=group).params)


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ((), 0),
        (("--publish-service=a/b", "--validating-webhook=:8443", "--enable-metrics=false"), 0),
        (("--validating-webhook-certificate=/cert", "--enable-ssl-passthrough", "--disable-leader-election"), 0),
        (("--maxmind-license-key=x", "--v=2", "--election-id=x", "--certificate-authority=/ca"), 0),
        (("--tcp-services-configmap=a/b",), 3),
        (("--enable-ssl-chain-completion",), 3),
        (("--enable-topology-aware-routing=true",), 3),
        (("--apiserver-host=https://other",), 3),
        (("--nginx-configmap=a/b",), 3),
        (("--bind-addresses=192.0.2.1",), 3),
    ],
)
def test_strict_fails_because_of_flags_that_change_what_is_served(reasons, capsys, flags, code) -> None:
    Path("objects.yaml").write_text(OBJECTS + ENDPOINTS)
    with pytest.raises(SystemExit) as stop:
        main([*PLAN[:-2], "--strict", *TAKEN, *flags])
    assert (stop.value.code or 0) == code
    assert ("Ingresses that are not served as specified:" in capsys.readouterr().out) is (code == 3)


@pytest.mark.parametrize(
    "flags",
    [
        ("--watch-namespace=",),
        ("--watch-namespace", ""),
        ("--watch-namespace-selector=",),
        ("--configmap=",),
        ("--configmap", ""),
        ("--default-ssl-certificate=",),
        ("--default-backend-service=",),
        ("--kubeconfig=",),
        ("--tcp-services-configmap=",),
        ("--validating-webhook", ""),
    ],
)
def test_an_empty_value_means_the_default(reasons, flags) -> None:
    assert reasons(*TAKEN, *flags) == reasons(*TAKEN)


@pytest.mark.parametrize("earlier", [("--configmap=a/b",), ("--configmap", "a/b")])
@pytest.mark.parametrize("empty", [("--configmap=",), ("--configmap", "")])
def test_an_empty_value_replaces_earlier_ones_and_a_later_one_replaces_it(earlier, empty) -> None:
    assert parameters(*earlier, "--once", *empty) == parameters("--once")
    assert parameters(*empty, *earlier)["configmap"] == ObjectName("a", "b")
    assert parameters(*earlier, *empty, "--configmap=c/d")["configmap"] == ObjectName("c", "d")
    namespaces = ("--watch-namespace=a", "--watch-namespace", "b", "--watch-namespace=", "--watch-namespace=c")
    assert parameters(*namespaces)["watch_namespace"] == ("c",)
    assert parameters(*namespaces[:-1])["watch_namespace"] == ()


def test_an_empty_value_has_priority_over_the_environment(monkeypatch) -> None:
    (param,) = (param for param in run.params if param.name == "configmap")
    monkeypatch.setattr(param, "envvar", "RULEGEN_CONFIGMAP")
    monkeypatch.setenv("RULEGEN_CONFIGMAP", "a/b")
    assert parameters()["configmap"] == ObjectName("a", "b")
    assert parameters("--configmap=")["configmap"] is None


STATUS = ("--publish-service=a/b", "--report-node-internal-ip-address", "--lease-namespace=x")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), ""),
        (("--publish-service=a/b",), "--publish-service has no effect without --ingress or --publish-service-status"),
        (
            (*STATUS, "--no-update-status-on-shutdown"),
            "--publish-service, --report-node-internal-ip-address, --lease-namespace have no effect without",
        ),
        (("--publish-status-address=192.0.2.1", "--publish-service-status"), ""),
        ((*STATUS, "--publish-service-status"), ""),
        ((*STATUS, "--ingress"), ""),
        ((*STATUS, "--ingress", "--update-status=false", "--publish-service-status"), ""),
        (
            ("--publish-service=a/b", "--ingress", "--update-status=false"),
            "--publish-service has no effect without --update-status or --publish-service-status",
        ),
    ],
)
def test_the_agent_says_which_options_need_published_addresses(flags, said, monkeypatch, capsys) -> None:
    monkeypatch.setattr(run_module._Runs, "run", lambda runs: None)
    with pytest.raises(SystemExit) as stop:
        main(["run", *flags])
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    assert said in printed.err
    assert ("no effect without" in printed.err) is bool(said)


def test_no_flag_without_effect_is_reported_for_an_empty_value() -> None:
    assert [name for name, known in FLAGS.items() if "" not in known.fulfilled_by] == []


@pytest.mark.parametrize("flag", ["--publish-service", "--publish-status-address"])
def test_an_empty_value_means_the_default_for_the_agent(flag) -> None:
    for given in ((f"{flag}=",), (flag, "")):
        assert parameters(*given) == parameters()


@pytest.mark.parametrize(
    ("flags", "verbose"),
    [
        ((), False),
        (("-v",), True),
        (("--verbose",), True),
        (("-v=0",), False),
        (("-v=2",), True),
        (("-v2",), True),
        (("-v", "2"), True),
        (("-v", "0"), False),
        (("--v=5",), True),
        (("--v", "5"), True),
        (("--v=0",), False),
        (("-v", "--once"), True),
    ],
)
def test_v_takes_a_level_as_kubectl_does(flags, verbose) -> None:
    assert parameters(*flags)["verbose"] is verbose


@pytest.mark.parametrize("flag", ["-v=", "-v=debug", "--v=2.5", "-v=²"])
def test_a_level_that_is_no_number_is_an_error(flag) -> None:
    with pytest.raises(click.UsageError, match="is not a number such as 2"):
        parameters(flag)


def test_a_level_of_the_log_is_taken_by_the_plan_which_then_lists_all(reasons) -> None:
    for flags in (("-v=2",), ("-v", "2"), ("--v=2",), ("-v",)):
        assert [line for line in reasons(*TAKEN, *flags) if "-v" in line] == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--publish-service=a/b",), "--publish-service has no effect without --ingress"),
        (("--http-port=81", "--no-such=1"), ""),
        (
            ("--tcp-services-configmap", "a/b", "--ingress-class=nginx"),
            "--ingress-class, --tcp-services-configmap have",
        ),
        (("--watch-namespace=shop", "--nginx-dir", "d"), "--nginx-dir, --watch-namespace have no effect"),
        (("--watch-namespace=",), ""),
        (("-v=2",), ""),
    ],
)
def test_without_ingresses_one_warning_lists_what_has_no_effect(reasons, capsys, flags, said) -> None:
    with pytest.raises(SystemExit):
        main(["plan", *PLAN[3:-2], *flags])
    printed = capsys.readouterr().out
    assert said in printed
    assert printed.count("no effect without --ingress") == bool(said)
