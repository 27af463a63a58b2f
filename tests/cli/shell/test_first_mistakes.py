"""What a newcomer gives by mistake leads to the next step: other files, other forms of them, unquoted patterns."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from tests.cli.test_plan import BLOG, folder, run  # noqa: F401 - fixtures

NONE = ("--observed", "none", "--host", "host", "--cluster-cidr", "10.244.0.0/16")
CONFIGURATION = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.99.0.0/16
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-proxy, namespace: kube-system}\ndata:\n"
TABLE = "NAMESPACE   NAME   TYPE   CLUSTER-IP   PORT(S)\ndefault   web   ClusterIP   10.96.0.1   80/TCP\n"


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def test_a_configuration_is_read_from_the_config_map_around_it(run):  # noqa: F811 - the fixture
    Path("alone").write_text(CONFIGURATION)
    Path("config-map").write_text(f"{CONFIG_MAP}  config.conf: |\n{indented(CONFIGURATION)}")
    alone, inside = (
        run("plan", "-f", "blog.yaml", *NONE[:4], "--config", name, "-v")[1] for name in ("alone", "config-map")
    )
    assert inside.replace("config-map", "alone") == alone
    assert "10.99.0.0/16" in alone


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("  other: x\n", "this ConfigMap has no text with the key config.conf"),
        ("  config.conf: |\n    kind: Pod\n    apiVersion: v1\n", "data[config.conf]: expected kubeproxy.config"),
        ("  config.conf: ''\n", "data[config.conf]: it is empty"),
        ("  config.conf: '{clusterCIDR: ['\n", "data[config.conf]: line 2: not YAML"),
    ],
)
def test_a_config_map_without_a_configuration_is_an_error(run, content, message):  # noqa: F811 - the fixture
    Path("config-map").write_text(CONFIG_MAP + content)
    code, out, err = run("plan", "-f", "blog.yaml", *NONE, "--config", "config-map")
    assert (code, out) == (1, "")
    assert message in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--nodeport-addresses", "foo"),
        ("--cluster-cidr", "foo"),
        ("--bind-address", "foo"),
        ("--ipvs-scheduler", "foo"),
        ("--ipvs-exclude-cidrs", "foo"),
    ],
)
def test_an_error_about_an_option_names_the_option(run, option, value):  # noqa: F811 - the fixture
    code, out, err = run("plan", "-f", "blog.yaml", *NONE[:4], "--mode", "ipvs", option, value)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {option}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; objects of a cluster: `kubectl get"),
        (TABLE, "a table that kubectl prints for people; -o yaml"),
    ],
    ids=["empty", "table"],
)
def test_no_objects_on_standard_input_lead_to_kubectl(run, monkeypatch, text, message):  # noqa: F811 - the fixture
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, err = run("plan", "-f", "-", *NONE)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


def test_a_pattern_without_quotes_leads_to_f(run):  # noqa: F811 - the fixture
    Path("more.yaml").write_text(BLOG)
    code, out, err = run("plan", "-f", "blog.yaml", "more.yaml", *NONE)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("Next: a path needs an -f of its own; quote a pattern")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "blog.yaml"), "blog.yaml is a path, not the name of a Service\nNext: a path needs an -f of its own"),
        (
            ("apply", "blog.yaml"),
            "blog.yaml: it is not a saved plan of this version\nNext: save one with `rulegen plan",
        ),
        (("show", "-f", "blog.yaml"), "Next: `rulegen show PATH...` takes the paths of dumps without an option"),
        (
            ("plan", "--observed", "none", "-f", "https://example.com/a.yaml"),
            "Next: only files are read: `curl -fsSL URL | rulegen plan",
        ),
    ],
)
def test_a_path_in_the_wrong_place_leads_to_the_right_one(run, words, message):  # noqa: F811 - the fixture
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert message in err


def test_a_compressed_file_is_read(run):  # noqa: F811 - the fixture
    Path("blog.yaml.gz").write_bytes(gzip.compress(BLOG.encode()))
    plans = [run("plan", "-f", name, *NONE) for name in ("blog.yaml", "blog.yaml.gz")]
    assert plans[0] == plans[1]
    assert plans[0][0] == 0


@pytest.mark.parametrize("content", ["just a text\n", "[a, b]\n", "- contexts\n", "42\n"])
def test_what_is_no_kubeconfig_is_named_without_words_of_python(run, content):  # noqa: F811 - the fixture
    Path("kubeconfig").write_text(content)
    code, out, err = run("plan", "--kubeconfig", "kubeconfig", *NONE)
    assert (code, out) == (1, "")
    assert err.startswith("Error: kubeconfig kubeconfig: expected a mapping with clusters, contexts and users\nNext: ")


def test_q_shows_the_totals_alone(run):  # noqa: F811 - the fixture
    whole = run("plan", "-f", "blog.yaml", *NONE)[1].splitlines()
    code, out, _ = run("plan", "-f", "blog.yaml", *NONE, "-q")
    assert code == 0
    assert out.splitlines()[-2:] == whole[-2:]
    assert "demo/blog" not in out
    assert "Plan: " in out
    assert run("plan", "-f", "blog.yaml", *NONE, "-q", "-v")[2].startswith("Error: -q with -v: ")
