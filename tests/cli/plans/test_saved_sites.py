"""Saved plans of Ingresses: refused after a change of what nginx serves, and not after another one.

A plan that still applies asks for confirmation, and nothing is written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.cli.test_plan import BLOG, folder, run  # noqa: F401 - fixtures
from tests.rights import needs_nginx
from tests.sizes import sized

pytestmark = needs_nginx

SEEDS = range(sized(quick=1, usual=2, full=20))
OPTIONS = ("-f", "objects", "--host", "host", "--ingress", "--no-services", "--nginx-dir", "site")
INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: demo
  labels: {{tier: {label}}}
  annotations: {{nginx.ingress.kubernetes.io/{annotation}: "{value}"}}
spec:
  ingressClassName: {class_name}
  rules: [{{host: {host}, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {backend}}}]}}}}]
"""
CLASS = """\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: rulegen}
spec: {controller: rulegen.io/ingress}
"""
AS_SAVED = {
    "name": "blog",
    "label": "a",
    "annotation": "proxy-body-size",
    "value": "8m",
    "class_name": "rulegen",
    "host": "blog.example.com",
    "path": "/",
    "backend": "{service: {name: blog, port: {number: 8080}}}",
}


def write(ingress: Mapping[str, str], blog: str = BLOG, *more: str) -> None:
    Path("objects").mkdir(exist_ok=True)
    text = "---\n".join((CLASS, blog, INGRESS.format(**ingress), *more))
    Path("objects/all.yaml").write_text(text, encoding="utf-8")


def other_host(pick: random.Random) -> None:
    write({**AS_SAVED, "host": f"h{pick.randrange(10**6)}.example.com"})


def other_path(pick: random.Random) -> None:
    write({**AS_SAVED, "path": f"/p{pick.randrange(10**6)}"})


def other_annotation(pick: random.Random) -> None:
    write({**AS_SAVED, "value": f"{pick.randrange(9, 1000)}m"})


def other_endpoint(pick: random.Random) -> None:
    write(AS_SAVED, BLOG.replace("10.244.1.2", f"10.244.2.{pick.randrange(1, 255)}"))


def one_more(pick: random.Random) -> None:
    write(
        AS_SAVED, BLOG, INGRESS.format(**{**AS_SAVED, "name": "more", "host": f"m{pick.randrange(10**6)}.example.com"})
    )


def other_label(pick: random.Random) -> None:
    write({**AS_SAVED, "label": f"b{pick.randrange(10**6)}"})


def another_class(pick: random.Random) -> None:
    others = {**AS_SAVED, "name": "more", "class_name": "traefik", "host": f"m{pick.randrange(10**6)}.example.com"}
    write(AS_SAVED, BLOG, INGRESS.format(**others))


def a_secret_that_nobody_refers_to(pick: random.Random) -> None:
    name = f"s{pick.randrange(10**6)}"
    write(AS_SAVED, BLOG, f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: demo}}\ntype: Opaque\n")


@pytest.fixture
def pending(run):  # noqa: F811 - the fixture
    write(AS_SAVED)
    code, _, err = run("plan", *OPTIONS, "--out", "saved")
    assert code == 0, err
    return run


def test_an_unchanged_plan_still_applies(pending):
    assert "confirmation is needed" in pending("apply", "saved")[2]


@pytest.mark.parametrize(
    "change", [other_host, other_path, other_annotation, other_endpoint, one_more], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_what_is_served_is_refused(pending, change: Callable[[random.Random], None], seed: int):
    change(random.Random(seed))
    code, out, err = pending("apply", "saved", "--yes")
    assert (code, out) == (1, "")
    assert "the configuration for Ingresses has changed" in err
    assert not Path("site").exists()


@pytest.mark.parametrize(
    "change", [other_label, another_class, a_secret_that_nobody_refers_to], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("seed", SEEDS)
def test_another_change_is_not(pending, change: Callable[[random.Random], None], seed: int):
    change(random.Random(seed))
    err = pending("apply", "saved")[2]
    assert "confirmation is needed" in err
    assert "has changed" not in err
