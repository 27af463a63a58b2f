"""Options from environment variables, and what happens if they are wrong."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from rulegen.cli.main import cli, main
from rulegen.cli.options.environment import variable
from tests.cli.test_plan import BLOG, HOST

CONTEXT = click.Context(cli)
COMMANDS = [cli.get_command(CONTEXT, name) for name in cli.list_commands(CONTEXT)]
OPTIONS = [option for command in COMMANDS for option in command.params if isinstance(option, click.Option)]
CONFIG = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n"
IPVS = "virtual server"


@pytest.fixture
def plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Return a function that previews a Service with more arguments and variables."""
    (tmp_path / "blog.yaml").write_text(BLOG)
    (tmp_path / "shop.yaml").write_text(
        BLOG.replace("blog", "shop").replace("96.0.10", "96.0.11").replace("32388", "3")
    )
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def call(*more: str, **variables: str) -> tuple[int, str, str]:
        given = {"RULEGEN_FILENAME": "blog.yaml", "RULEGEN_HOST": "host", "RULEGEN_OBSERVED": "none", **variables}
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as stop:
                main(["plan", "-v", *more])
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


def test_variables_are_options_and_the_command_line_has_priority(plan):
    assert IPVS not in plan()[1]
    assert IPVS in plan(RULEGEN_MODE="ipvs")[1]
    assert IPVS not in plan("--mode", "iptables", RULEGEN_MODE="ipvs")[1]
    assert IPVS not in plan(RULEGEN_MODE="")[1]


def test_a_variable_has_priority_over_the_configuration(plan):
    assert IPVS in plan("--config", "config", RULEGEN_MODE="ipvs")[1]
    assert IPVS in plan(RULEGEN_CONFIG="config", RULEGEN_MODE="ipvs")[1]
    assert IPVS not in plan(RULEGEN_CONFIG="config")[1]


def test_a_repeatable_option_takes_values_separated_by_spaces(plan):
    both = "blog.yaml shop.yaml"
    assert all(name in plan(RULEGEN_FILENAME=both)[1] for name in ("demo/blog", "demo/shop"))
    assert "demo/shop" not in plan("-f", "blog.yaml", RULEGEN_FILENAME=both)[1]


def test_a_boolean_takes_true_and_false(plan):
    on, off = (plan(RULEGEN_MASQUERADE_ALL=value) for value in ("true", "false"))
    assert (on[0], off[0]) == (0, 0)
    assert on[1] == plan("--masquerade-all")[1] != off[1]


def test_an_invalid_value_names_its_variable(plan):
    code, _, errors = plan(RULEGEN_MODE="ipvz")
    assert code == 1
    assert errors.endswith("Next: correct or unset the environment variable RULEGEN_MODE\n")


def test_a_misspelled_variable_is_reported(plan):
    code, out, errors = plan(RULEGEN_MOD="ipvs")
    assert (code, IPVS in out) == (0, False)
    assert "Warning: RULEGEN_MOD has no effect; did you mean RULEGEN_MODE?\n" in errors


@pytest.mark.parametrize(
    "name",
    [
        "RULEGEN_SERVICE_HOST",  # Kubernetes sets these for a Service rulegen
        "RULEGEN_PORT_80_TCP_ADDR",
        "RULEGEN_OPTIONS",  # of the systemd units
        "RULEGEN_METRICS_ADDRESS",  # an option of another command
    ],
)
def test_variables_for_other_purposes_are_not_reported(plan, name):
    assert plan(**{name: "1"})[2] == plan()[2]


def test_consent_secrets_and_formats_have_no_variable():
    without = {max(option.opts, key=len) for option in OPTIONS if option.envvar is None}
    assert without == {
        "--yes", "--with-secrets", "--out", "--output", "--allow-empty", "--allow-unknown-node",
        "--ingress-allow-endpoint",
    }  # fmt: skip


def test_no_variable_of_an_option_means_something_else():
    taken = {"RULEGEN_DEBUG", "RULEGEN_OPTIONS", "RULEGEN_SHARED", "RULEGEN_PYTHON", "RULEGEN_VENV"}
    assert {variable(option) for option in OPTIONS}.isdisjoint(taken)
