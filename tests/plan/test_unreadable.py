"""An iptables that is older than the one that wrote the rules shows some options as `[unsupported revision]`."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.compiler.services.plan import plan_node
from rulegen.diff.items import Action
from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import UNREADABLE, is_unreadable, may_be, read, unreadable_rules
from rulegen.languages.iptables.script import script
from rulegen.model.host.facts import HostFacts
from rulegen.net import Family
from tests.kernels.kernel import Kernel
from tests.kernels.observed import observing
from tests.plan.test_drift import TWO, plan, wants, world
from tests.sizes import examples

EXTENSIONS = ["conntrack", "addrtype", "mark", "statistic", "tcp", "nfacct", "MARK", "MASQUERADE", "DNAT", "DROP"]


def blurred(text: str, extension: str, which: re.Pattern[str] | None = None) -> str:
    """Return a dump as a tool prints it that does not know how an extension's options were written."""
    kind = "-j" if extension.isupper() else "-m"
    options = re.compile(rf"({kind} {extension})((?: (?!-[mj] )\S+)*)")
    return "".join(
        options.sub(rf"\1 {UNREADABLE}", line) if line.startswith("-A") and (not which or which.search(line)) else line
        for line in text.splitlines(keepends=True)
    )


def loaded() -> Kernel:
    kernel = Kernel()
    part = plan(TWO, kernel).of("iptables")[Family.IPV4]
    for restore in script(part.changes, part.desired):
        kernel.restore(restore.text)
    return kernel


def planned(snapshot, text: str):
    return plan_node(wants(snapshot), observing(rulesets={Family.IPV4: read(text, "dump", Family.IPV4)}), HostFacts())


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_can_be_read_is_compared_and_the_rest_is_no_change(extension):
    text = blurred(loaded().save(), extension)
    count = text.count(UNREADABLE)
    ruleset = read(text, "dump", Family.IPV4)
    assert 0 < unreadable_rules(ruleset) <= count
    assert planned(TWO, text).items == ()


@settings(deadline=None, max_examples=examples(30))
@given(st.lists(st.sampled_from(EXTENSIONS), max_size=4))
def test_several_at_once(extensions):
    text = loaded().save()
    for extension in extensions:
        text = blurred(text, extension)
    assert planned(TWO, text).items == ()


def test_a_changed_unreadable_object_is_one_change():
    text = blurred(loaded().save(), "statistic")
    items = planned(world("10.244.1.1", "10.244.1.2", "10.244.1.3"), text).items
    assert {(item.owner, item.drift) for item in items} == {("demo/blog", None)}
    assert Action.DELETE not in {item.action for item in items}


def test_an_unreadable_foreign_rule_is_no_drift():
    kernel = loaded()
    kernel.tables["nat"]["KUBE-SERVICES"].insert(0, f"-m owner {UNREADABLE} -j ACCEPT")
    (item,) = plan(TWO, kernel).items
    assert (item.action, item.drift) == (Action.DELETE, None)


def test_an_unreadable_rule_is_deleted_with_its_chain():
    kernel = loaded()
    kernel.tables["nat"]["KUBE-SERVICES"].insert(0, f"-m owner {UNREADABLE} -j ACCEPT")
    part = plan(TWO, kernel).of("iptables")[Family.IPV4]
    texts = [restore.text for restore in script(part.changes, part.desired)]
    assert not any(f"-D KUBE-SERVICES -m owner {UNREADABLE}" in text for text in texts)
    for text in texts:
        kernel.restore(text)
    assert plan(TWO, kernel).is_empty


@pytest.mark.parametrize(
    ("spec", "other", "may"),
    [
        (f"-m mark {UNREADABLE} -j DROP", "-m mark ! --mark 0x1/0x1 -j DROP", True),
        (f"-m mark {UNREADABLE} -j DROP", "-m mark --mark 0x1/0x1 -j ACCEPT", False),
        (f"-m mark {UNREADABLE} -j DROP", "-m mark --mark 0x1/0x1 -m tcp --dport 1 -j DROP", False),
        (f"-p tcp -j DNAT {UNREADABLE}", "-p tcp -j DNAT --to-destination 10.0.0.1:80", True),
        (f"-p tcp -j DNAT{UNREADABLE}", "-p tcp -j DNAT --to-destination 10.0.0.1:80", True),
        (f"-m a {UNREADABLE} -m b {UNREADABLE} -j X", "-m a --x 1 -m b --y 2 -j X", True),
    ],
)
def test_what_a_rule_may_be(spec, other, may):
    assert may_be(Rule(spec), Rule(other)) is may


def test_text_of_others_makes_no_rule_unreadable():
    assert not is_unreadable(Rule(f'-m string --string "{UNREADABLE}" -j DROP'))
