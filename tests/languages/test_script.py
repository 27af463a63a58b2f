"""Scripts: as small as the change, chunks that stand alone, the dispatch behind what it refers to."""

from __future__ import annotations

from rulegen.diff.changes import diff
from rulegen.languages.iptables.rules import Rule
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.script import Comments, script
from rulegen.languages.iptables.state import (
    Block,
    BlockKey,
    ChainKey,
    ChainPosition,
    ChainValue,
    Kind,
    RulesFragment,
    wanted,
)
from rulegen.net import Family

SERVICES = ChainName("nat", "KUBE-SERVICES")
TAIL = Block(SERVICES, (Rule("-j KUBE-NODEPORTS"),), ChainPosition.TAIL)


def fragment(number: int) -> RulesFragment:
    chain = ChainName("nat", f"KUBE-SVC-{number:04}")
    return RulesFragment(
        f"shop/s{number}",
        Family.IPV4,
        {chain: (Rule(f"-j KUBE-SEP-{number:04}"),), ChainName("nat", f"KUBE-SEP-{number:04}"): (Rule("-j DNAT"),)},
        blocks=(Block(SERVICES, (Rule(f"-d 10.0.0.{number % 250}/32 -j {chain.chain}"),)),),
    )


BASE = RulesFragment("", Family.IPV4, dispatch=(SERVICES,), blocks=(TAIL,))


def lines(before: list[RulesFragment], after: list[RulesFragment], **options) -> list[list[str]]:
    old, new = wanted(before).objects, wanted(after).objects
    return [restore.text.splitlines() for restore in script(diff(old, new), new, **options)]


def test_no_changes_make_no_script():
    assert lines([BASE, fragment(1)], [BASE, fragment(1)]) == []


def test_one_more_service_costs_its_own_lines_only():
    many = [BASE, *(fragment(number) for number in range(1000))]
    (commit,) = lines(many, [*many, fragment(2000)])
    assert commit == [
        "*nat",
        ":KUBE-SEP-2000 - [0:0]",
        ":KUBE-SVC-2000 - [0:0]",
        "-A KUBE-SEP-2000 -j DNAT",
        "-A KUBE-SVC-2000 -j KUBE-SEP-2000",
        "-I KUBE-SERVICES -d 10.0.0.0/32 -j KUBE-SVC-2000",
        "COMMIT",
    ]


def test_a_service_loses_its_dispatch_before_its_chains():
    (commit,) = lines([BASE, fragment(1), fragment(2)], [BASE, fragment(1)])
    assert commit.index("-D KUBE-SERVICES -d 10.0.0.2/32 -j KUBE-SVC-0002") < commit.index("-X KUBE-SVC-0002")


def test_a_misplaced_tail_goes_to_the_end_and_the_old_one_goes():
    astray = {**wanted([BASE]).objects}
    key = BlockKey(SERVICES, ("-j KUBE-NODEPORTS",))
    astray[key] = type(astray[key])(astray[key].copies, ChainPosition.ASTRAY)
    (restore,) = script(diff(astray, wanted([BASE]).objects))
    assert restore.text.splitlines()[1:3] == [
        "-D KUBE-SERVICES -j KUBE-NODEPORTS",
        "-A KUBE-SERVICES -j KUBE-NODEPORTS",
    ]


def test_a_large_load_has_several_commits_and_dispatch_last():
    commits = lines([], [BASE, *(fragment(number) for number in range(500))], chains_per_commit=100)
    assert len(commits) == 11
    known: set[str] = set()
    for commit in commits[:-1]:
        known |= {line[1:].split()[0] for line in commit if line.startswith(":")}
        assert {line.split()[-1] for line in commit if "-j KUBE-" in line} <= known
    assert all(line.startswith(("*", ":KUBE-SERVICES", "-A KUBE-SERVICES", "COMMIT")) for line in commits[-1])
    assert commits[-1][-2] == "-A KUBE-SERVICES -j KUBE-NODEPORTS"


def test_a_much_changed_dispatch_chain_is_rewritten():
    before = [BASE, *(fragment(number) for number in range(600))]
    after = [BASE, *(fragment(number) for number in range(300, 900))]
    (commit,) = lines(before, after)
    assert ":KUBE-SERVICES - [0:0]" in commit
    assert not [line for line in commit if line.startswith(("-I", "-D"))]


def test_a_chain_value_compares_by_rules_and_not_by_comments():
    first, second = (ChainValue((Rule("-j X", comment),), Kind.EXACT) for comment in ("a", "b"))
    key = ChainKey(ChainName("nat", "KUBE-SVC-X"))
    assert diff({key: first}, {key: second}) == ()


def test_without_comments_the_dispatch_shows_a_chains_owner():
    chain = ChainName("nat", "KUBE-SVC-0001")
    said = RulesFragment(
        "shop/s1",
        Family.IPV4,
        {
            chain: (Rule("-j KUBE-SEP-0001", "shop/s1 to 10.0.0.1:80"),),
            ChainName("nat", "KUBE-SEP-0001"): (Rule("-j DNAT", "shop/s1"),),
        },
        blocks=(Block(SERVICES, (Rule("-d 10.0.0.1/32 -j KUBE-SVC-0001", "shop/s1 cluster IP"),)),),
    )
    for cut in (None, 1):
        commits = lines([], [BASE, said], comments=Comments.DISPATCH, chains_per_commit=cut)
        script = "\n".join(line for commit in commits for line in commit)
        assert "-A KUBE-SEP-0001 -j DNAT\n" in script
        assert "-A KUBE-SVC-0001 -j KUBE-SEP-0001\n" in script
        assert '-A KUBE-SERVICES -m comment --comment "shop/s1 cluster IP" -d 10.0.0.1/32 -j KUBE-SVC-0001\n' in script


def test_rules_without_comments_are_deleted_by_their_text():
    def said(*rules: Rule) -> list[RulesFragment]:
        return [BASE, RulesFragment("shop/s1", Family.IPV4, blocks=tuple(Block(SERVICES, (rule,)) for rule in rules))]

    ours = Rule("-d 10.0.0.1/32 -j KUBE-SVC-0001", "shop/s1 cluster IP")
    seen = Rule("-d 10.0.0.2/32 -j KUBE-SVC-0001", "x", "-d 10.0.0.2/32 -m comment --comment x -j KUBE-SVC-0001")
    (commit,) = lines([BASE], said(ours), comments=Comments.NOWHERE)
    assert "-I KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-0001" in commit
    (commit,) = lines(said(ours, seen), [BASE], comments=Comments.NOWHERE)
    assert "-D KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-0001" in commit
    assert "-D KUBE-SERVICES -d 10.0.0.2/32 -m comment --comment x -j KUBE-SVC-0001" in commit
