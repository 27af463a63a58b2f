"""What we compile is what kube-proxy wrote, rule for rule, comments aside; and nothing that differs goes unseen."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

import pytest

from rulegen.cli.main import main
from rulegen.cli.options.common import CliOptions
from rulegen.cli.wiring.inputs import Inputs
from rulegen.compiler.services.compile import Compiled
from rulegen.compiler.services.plan import plan_node
from rulegen.diff.items import Action
from rulegen.host.files.dumps import read_dumps
from rulegen.languages.iptables.ruleset import read
from rulegen.net import Family
from tests.kernels.observed import observing
from tests.shared import each, worlds
from tests.sizes import sampled, sized

DUMPS = {Family.IPV4: "iptables.save", Family.IPV6: "ip6tables.save"}
WORLDS = worlds(*DUMPS.values(), "objects.yaml")
LEGACY = worlds(*(f"legacy/{name}" for name in DUMPS.values()), "objects.yaml")
DEFINITE = [world for world in WORLDS if not (world / "variants").exists()]
MOST_MUTATIONS = sized(quick=2, usual=10, full=250)


def name_of(world: Path) -> str:
    return world.name


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code or 0, capsys.readouterr().out


def arguments(world: Path, *dumps: Path) -> list[str]:
    observed = [word for dump in dumps for word in ("--observed", str(dump))]
    return [
        *("plan", "-f", str(world / "objects.yaml"), "--config", str(world / "config.yaml")),
        *("--host", str(world / "world.yaml"), *observed, "--detailed-exitcode"),
    ]


@pytest.mark.parametrize("world", each(WORLDS, "world of iptables mode"), ids=name_of)
def test_a_node_that_kube_proxy_has_programmed_needs_no_changes(world: Path, capsys: pytest.CaptureFixture[str]):
    variants = sorted(world.glob("variants/iptables.save*"))  # where kube-proxy left it to chance
    reported = []
    for ipv4 in (world / "iptables.save", *variants):
        reported.append(run(capsys, *arguments(world, ipv4, world / "ip6tables.save")))
        if reported[-1][0] == 0:
            break
    code, text = reported[-1]
    assert (code, text.splitlines()[-1]) == (0, "No changes. The node matches the objects."), reported[0][1]


@pytest.mark.parametrize("world", each(LEGACY, "world with dumps of iptables-legacy"), ids=name_of)
def test_legacy_dumps_need_no_changes_either(world: Path, capsys: pytest.CaptureFixture[str]):
    code, text = run(capsys, *arguments(world, world / "legacy"))
    assert code == 0, text


@lru_cache(maxsize=2)
def inputs_of(world: Path) -> Inputs:
    chosen = CliOptions(
        files=(str(world / "objects.yaml"),), config=str(world / "config.yaml"), host=str(world / "world.yaml")
    )
    return Inputs(chosen)


@lru_cache(maxsize=2)
def compiled_of(world: Path) -> Compiled:
    """Return the model in its backend's words, counting as kube-proxy did there."""
    dumps = read_dumps([str(world / name) for name in DUMPS.values()]).rulesets
    return inputs_of(world).compiled(observing(dumps), is_live=False)


def shown(world: Path, family: Family, lines: list[str]) -> list[str]:
    """Return the lines of the plan against an edited dump of one family."""
    ruleset = read("\n".join(lines), "edited", family)
    plan = plan_node(compiled_of(world), observing(rulesets={family: ruleset}), inputs_of(world).facts)
    return [
        f"{item.action} {item.name} {line.text}".rstrip()
        for item in plan.items
        for line in item.lines or ()
        if line.sign != " " or item.action is Action.CHANGE
    ]


def rule_lines(lines: list[str]) -> list[int]:
    results = [number for number, line in enumerate(lines) if line.startswith("-A ")]
    return results if len(results) <= MOST_MUTATIONS else sorted(random.Random(1).sample(results, MOST_MUTATIONS))


def normal(line: str) -> str:
    return " ".join(line.split())


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(DEFINITE, "world of iptables mode with a single right answer"), ids=name_of)
def test_any_one_rule_removed_or_added_is_found_and_shown(world: Path, family: Family):
    lines = (world / DUMPS[family]).read_text().splitlines()
    assert shown(world, family, lines) == []
    for number in rule_lines(lines):
        _, chain, *rest = normal(lines[number]).split(" ")
        spec = " ".join(rest)

        missing = shown(world, family, [*lines[:number], *lines[number + 1 :]])
        assert any(chain in line and line.endswith(spec) for line in missing), f"removed: {lines[number]}"

        doubled = shown(world, family, [*lines[:number], lines[number], *lines[number:]])
        assert any(chain in line and line.endswith(spec) for line in doubled), f"doubled: {lines[number]}"

        if chain.startswith("KUBE-"):
            foreign = f"-A {chain} -s 192.0.2.77/32 -j ACCEPT"
            added = shown(world, family, [*lines[:number], foreign, *lines[number:]])
            assert any(chain in line and "192.0.2.77" in line for line in added), f"added before: {lines[number]}"


@pytest.mark.parametrize("world", each(sampled(DEFINITE[:20]), "definite world of iptables mode"), ids=name_of)
def test_any_one_chain_removed_is_found(world: Path):
    lines = (world / DUMPS[Family.IPV4]).read_text().splitlines()
    table = ""
    for number, line in enumerate(lines):
        table = line[1:] if line.startswith("*") else table
        if line.startswith(":KUBE-"):
            chain = line[1:].split(" ")[0]
            kept = [
                other
                for at, other in enumerate(lines)
                if at != number and not (other.startswith(f"-A {chain} ") or other == f"-A {chain}")
            ]
            ruleset = read("\n".join(kept), "edited", Family.IPV4)
            plan = plan_node(compiled_of(world), observing(rulesets={Family.IPV4: ruleset}), inputs_of(world).facts)
            assert any(chain in item.name for item in plan.items), f"{table} {chain}"
