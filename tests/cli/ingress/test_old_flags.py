"""Commands that are given the arguments of ingress-nginx: taken, and what has no effect is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rulegen.cli.commands.run import command as run
from rulegen.cli.main import cli, main
from rulegen.kube.objects.names import ObjectName

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
    group = cli.make_context("rulegen", ["run"])  # click keeps the names of the first help option that it makes
    context = run.make_context("run", list(flags), parent=group)
    assert {name: context.params[name] for name in expected} == expected
    assert context.params["flag_reports"] == ()
