"""Commands and options of other tools lead to those of rulegen."""

from __future__ import annotations

import re

import click
import pytest

from rulegen.cli.habits import COMMANDS, FILTERS, OPTIONS
from rulegen.cli.main import cli, main

CONTEXT = click.Context(cli)
OWN = tuple(cli.list_commands(CONTEXT))


@pytest.fixture
def refused(capsys):
    """Return a function that calls a command which fails, and returns its error text."""

    def call(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(list(words))
        assert stop.value.code == 1
        return capsys.readouterr().err

    return call


def test_a_command_of_another_tool_leads_to_ours(refused):
    for given in COMMANDS:
        step = refused(given).splitlines()[-1]
        assert re.fullmatch(rf"Next: `rulegen (--help|--version|{'|'.join(OWN)})` .*", step), given


def test_an_option_of_another_tool_leads_to_ours(refused):
    for given in OPTIONS:
        assert refused("apply", given).splitlines()[-1].startswith("Next: "), given


@pytest.mark.parametrize(("given", "meant"), [("pln", "plan"), ("aply", "apply"), ("docter", "doctor")])
def test_a_misspelled_command_has_a_suggestion(refused, given, meant):
    assert f"Did you mean '{meant}'?" in refused(given)


def test_no_habit_is_a_command_or_an_option_of_rulegen():
    assert COMMANDS.keys().isdisjoint(OWN)
    for name in OWN:
        options = cli.get_command(CONTEXT, name).params
        assert {text for option in options for text in (*option.opts, *option.secondary_opts)}.isdisjoint(OPTIONS)


def test_formats_that_do_not_exist_lead_to_those_that_do(refused):
    assert "Next: -o json prints JSON" in refused("plan", "-o", "yaml")


def test_as_a_plugin_of_kubectl_the_usage_says_so(refused, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/kubectl-rulegen", "diff"])
    said = refused("diff")
    assert said.startswith("Usage: kubectl rulegen ")
    assert "Next: `kubectl rulegen plan` shows what would change" in said


def test_the_version_names_the_kube_proxy_whose_rules_are_written(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"rulegen \S+ \(rules of kube-proxy 1\.36\)\n", capsys.readouterr().out)


@pytest.mark.parametrize("given", sorted(FILTERS))
def test_apply_says_why_it_takes_no_filter_of_plan(refused, given):
    step = refused("apply", given, "shop").splitlines()[-1]
    assert step.startswith("Next: apply always writes the whole plan, because ")
    assert "`rulegen plan` with the same filter" in step
    plan = {text for option in cli.get_command(CONTEXT, "plan").params for text in option.opts}
    assert given in plan


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("apply", "-auto-approve"), "long options have two dashes, --auto-approve: --yes writes without asking"),
        (("plan", "-out=saved"), "long options have two dashes, --out"),
        (("plan", "-detailed-exitcode"), "long options have two dashes, --detailed-exitcode"),
        (("plan", "-target=shop/web"), "long options have two dashes, --target: `rulegen plan NAMESPACE/NAME` shows"),
        (("export", "-f", "a.yaml", "b.yaml"), "a path needs an -f of its own"),
    ],
)
def test_habits_of_terraform_and_of_the_shell_have_a_next_step(refused, words, step):
    assert refused(*words).splitlines()[-1].startswith(f"Next: {step}")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_has_two_options(capsys, option):
    with pytest.raises(SystemExit) as stop:
        main([option])
    assert (stop.value.code, capsys.readouterr().out[:8]) == (0, "rulegen ")
