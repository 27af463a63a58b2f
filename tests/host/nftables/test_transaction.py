"""Transactions of nf_tables on a real kernel, each test in a namespace of its own."""

from __future__ import annotations

import errno
import struct

import pytest

from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, run
from rulegen.host.nftables.kernel import elements
from rulegen.host.nftables.kernel.attributes import ACCEPT, GOTO, KernelVerdict
from rulegen.host.nftables.kernel.dump import read_table
from rulegen.host.nftables.kernel.elements import CATCH_ALL, KernelElement
from rulegen.host.nftables.kernel.expressions import (
    EQUAL,
    BitwiseExpr,
    ByteorderExpr,
    CompareExpr,
    CounterExpr,
    CtExpr,
    DynsetExpr,
    FibExpr,
    HashExpr,
    ImmediateExpr,
    LimitExpr,
    LogExpr,
    LookupExpr,
    MasqueradeExpr,
    MetaExpr,
    NatExpr,
    NotrackExpr,
    NumgenExpr,
    PayloadExpr,
    RangeExpr,
    RedirectExpr,
    RejectExpr,
    UnknownExpr,
)
from rulegen.host.nftables.kernel.objects import (
    CONCAT,
    DYNAMIC,
    INTERVAL,
    MAP,
    TIMEOUT,
    VERDICT_TYPE,
    Hook,
    KernelSet,
    TableName,
    append_rule,
    delete_chain,
    delete_rule,
    delete_set,
    delete_table,
    flush_chain,
    new_chain,
    new_set,
    new_table,
)
from rulegen.host.nftables.kernel.transaction import NftSocket, TransactionError

pytestmark = pytest.mark.usefixtures("namespace")

TABLE = TableName(2, "t")
IPV4, PROTOCOL, PORT, MARK = 7, 12, 13, 19
NAT_HOOK, FILTER_HOOK = Hook("nat", 0, -100), Hook("filter", 1, 0)
ENDPOINTS = KernelSet("endpoints", MAP, (IPV4 << 6 | PORT) << 6 | MARK, 12, IPV4 << 6 | PORT, 8, size=65536)
FRONTENDS = KernelSet("frontends", MAP, IPV4 << 6 | PORT, 8, VERDICT_TYPE, 16)
ACCEPTED = ImmediateExpr(0, KernelVerdict(ACCEPT))


@pytest.fixture
def link():
    opened = NftSocket()
    yield opened
    opened.close()


def endpoint(number, port=80):
    key = struct.pack(">IH2x", 0x0A600000 + number, port) + struct.pack("=I", number % 3)
    return key, struct.pack(">IH2x", 0x0AF40000 + number, 8080)


def listed(*arguments):
    ended = run(Command(("nft", *arguments, "list", "ruleset")))
    assert (ended.code, ended.stderr) == (0, "")
    return ended.stdout


class TestTransactions:
    def test_all_is_written_and_read_back(self, link):
        rules = [
            (PayloadExpr(8, 1, 16, 4), PayloadExpr(9, 2, 2, 2), LookupExpr("frontends", 8, 0, 0)),
            (CounterExpr(), ACCEPTED),
        ]
        pairs = [endpoint(number) for number in range(10)]
        to_chain = (struct.pack(">IH2x", 1, 80), KernelVerdict(GOTO, "two"))
        link.commit(
            [
                new_table(TABLE),
                new_chain(TABLE, "prerouting", NAT_HOOK),
                new_chain(TABLE, "two"),
                new_set(TABLE, ENDPOINTS),
                new_set(TABLE, FRONTENDS),
                *(append_rule(TABLE, "prerouting", rule, b"\0\3ab\0") for rule in rules),
                *elements.add_pairs(TABLE, "endpoints", pairs),
                *elements.add_pairs(TABLE, "frontends", [to_chain]),
            ]
        )
        table = read_table(link, TABLE)
        assert table.chains == {"prerouting": NAT_HOOK, "two": None}
        assert [rule.expressions for rule in table.rules["prerouting"]] == rules
        assert [rule.user_data for rule in table.rules["prerouting"]] == [b"\0\3ab\0"] * 2
        assert table.sets == {"endpoints": ENDPOINTS, "frontends": FRONTENDS}
        assert sorted(table.elements["endpoints"]) == [KernelElement(*pair) for pair in sorted(pairs)]
        assert table.elements["frontends"] == (KernelElement(*to_chain),)
        assert "goto two" in listed()

    def test_a_refused_element_is_named_and_nothing_is_written(self, link):
        link.commit([new_table(TABLE), new_set(TABLE, ENDPOINTS)])
        pairs = [endpoint(number) for number in range(5000)]
        link.commit(list(elements.add_pairs(TABLE, "endpoints", pairs)))
        before = link.generation()
        news = [*(endpoint(number, 81) for number in range(4000)), (pairs[7][0], b"\1" * 8), endpoint(9000)]
        with pytest.raises(TransactionError, match="an element of endpoints: File exists") as caught:
            link.commit(list(elements.add_pairs(TABLE, "endpoints", news)))
        assert [refusal.subject.elements for refusal in caught.value.refusals] == [((pairs[7][0], b"\1" * 8),)]
        missing = endpoint(5001)[0]
        with pytest.raises(TransactionError, match="No such file") as caught:
            link.commit(list(elements.delete_keys(TABLE, "endpoints", [pairs[0][0], missing])))
        assert caught.value.refusals[0].subject.elements == (missing,)
        assert link.generation() == before
        assert len(read_table(link, TABLE).elements["endpoints"]) == 5000

    def test_every_refused_object_is_named(self, link):
        requests = [
            new_table(TABLE),
            new_chain(TABLE, "c"),
            append_rule(TABLE, "c", [LookupExpr("missing", 8)]),
            append_rule(TABLE, "c", [ACCEPTED]),
            delete_set(TABLE, "absent"),
        ]
        with pytest.raises(TransactionError) as caught:
            link.commit(requests)
        assert [refusal.subject for refusal in caught.value.refusals] == ["rule in chain c", "set absent"]
        assert caught.value.code == errno.ENOENT
        assert listed() == ""

    def test_a_check_writes_nothing(self, link):
        before = link.generation()
        link.check([new_table(TABLE), new_chain(TABLE, "c")])
        with pytest.raises(TransactionError, match="chain c: No such file"):
            link.check([delete_chain(TABLE, "c")])
        assert listed() == ""
        assert link.generation() == before

    def test_a_transaction_for_another_generation_is_refused(self, link):
        link.commit([new_table(TABLE)])
        link.commit([new_chain(TABLE, "c")], generation=link.generation())
        with pytest.raises(TransactionError) as caught:
            link.commit([new_chain(TABLE, "d")], generation=link.generation() - 1)
        assert caught.value.code == errno.ERESTART
        assert set(read_table(link, TABLE).chains) == {"c"}

    def test_nothing_is_a_transaction_of_nothing(self, link):
        before = link.generation()
        link.commit([])
        link.commit(list(elements.add_pairs(TABLE, "endpoints", [])))
        assert link.generation() == before

    def test_a_large_transaction_has_one_acknowledgement(self, link):
        link.commit(
            [
                new_table(TABLE),
                new_set(TABLE, ENDPOINTS._replace(size=100_000)),
                *elements.add_pairs(TABLE, "endpoints", [endpoint(number) for number in range(60_000)]),
            ]
        )
        assert len(read_table(link, TABLE).elements["endpoints"]) == 60_000

    def test_thousands_of_refusals_are_one_error(self, link):
        requests = [append_rule(TABLE, f"c{number}", [ACCEPTED]) for number in range(5000)]
        with pytest.raises(TransactionError, match="rule in chain c0") as caught:
            link.commit(requests)
        assert len(caught.value.refusals) == 5000
        link.commit([new_table(TABLE)])

    def test_objects_are_deleted(self, link):
        link.commit(
            [
                new_table(TABLE),
                new_chain(TABLE, "c"),
                new_chain(TABLE, "d"),
                new_set(TABLE, ENDPOINTS),
                *(append_rule(TABLE, "c", [CounterExpr(), ACCEPTED]) for _ in range(3)),
                append_rule(TABLE, "d", [ACCEPTED]),
                *elements.add_pairs(TABLE, "endpoints", [endpoint(number) for number in range(5)]),
            ]
        )
        first, second, _ = (rule.handle for rule in read_table(link, TABLE).rules["c"])
        link.commit([delete_rule(TABLE, "c", second), elements.flush(TABLE, "endpoints"), flush_chain(TABLE, "d")])
        table = read_table(link, TABLE)
        assert [rule.handle for rule in table.rules["c"]] == [first, first + 2]
        assert table.rules["d"] == ()
        assert table.elements["endpoints"] == ()
        link.commit([delete_set(TABLE, "endpoints"), delete_chain(TABLE, "d")])
        link.commit([delete_table(TABLE)])
        assert listed() == ""

    def test_a_closed_socket_is_an_error(self, link):
        link.close()
        with pytest.raises(HostError):
            link.commit([new_table(TABLE)])


FORMS = [
    (NAT_HOOK, (MetaExpr(8, 16), CompareExpr(8, EQUAL, b"\6"), PayloadExpr(8, 2, 2, 2), CompareExpr(8, 1, b"\0P"))),
    (NAT_HOOK, (CtExpr(8, 0), BitwiseExpr(8, 8, 4, b"\x08\0\0\0", b"\0\0\0\0"), CompareExpr(8, 1, b"\0\0\0\0"))),
    (NAT_HOOK, (CtExpr(8, 20, 0), CompareExpr(8, EQUAL, b"\x0a\0\0\1"))),
    (FILTER_HOOK, (ImmediateExpr(8, b"\0\x40\0\0"), MetaExpr(None, 3, 8))),
    (FILTER_HOOK, (ImmediateExpr(8, b"\0\x40\0\0"), CtExpr(None, 3, None, 8))),
    (NAT_HOOK, (PayloadExpr(8, 1, 12, 4), RangeExpr(8, EQUAL, b"\x0a\0\0\1", b"\x0a\0\0\x09"))),
    (NAT_HOOK, (FibExpr(8, 3, 1), CompareExpr(8, EQUAL, struct.pack("=I", 2)))),
    (NAT_HOOK, (NumgenExpr(8, 7, 1, 0), ByteorderExpr(8, 8, 1, 4, 4), CompareExpr(8, EQUAL, b"\0\0\0\1"))),
    (NAT_HOOK, (PayloadExpr(8, 1, 12, 4), HashExpr(9, 5, 0, 8, 4, 17, 3), CompareExpr(9, EQUAL, b"\1\0\0\0"))),
    (NAT_HOOK, (ImmediateExpr(8, b"\x0a\0\0\1"), ImmediateExpr(9, b"\0P"), NatExpr(1, 2, 8, 8, 9, 9, 3))),
    (Hook("nat", 4, 100), (MasqueradeExpr(0x10),)),
    (NAT_HOOK, (ImmediateExpr(8, b"\0P"), RedirectExpr(8, 8, 2))),
    (FILTER_HOOK, (RejectExpr(0, 3),)),
    (FILTER_HOOK, (RejectExpr(2, 1),)),
    (FILTER_HOOK, (LimitExpr(5, 60, 3, 0, 0), LogExpr(None, "dropped: ", 4), ImmediateExpr(0, KernelVerdict(0)))),
    (Hook("filter", 0, -300), (NotrackExpr(),)),
    (FILTER_HOOK, (ImmediateExpr(0, KernelVerdict(-3, "other")),)),
    (NAT_HOOK, (PayloadExpr(8, 1, 12, 4), DynsetExpr("seen", 1, 8, None, 9000, 0))),
]


class TestExpressions:
    @pytest.mark.parametrize(("hook", "rule"), FORMS, ids=lambda value: type(value[-1]).__name__)
    def test_read_back_as_written(self, link, hook, rule):
        seen = KernelSet("seen", TIMEOUT | DYNAMIC, IPV4, 4, size=65535, timeout_ms=10_800_000)
        objects = [new_table(TABLE), new_set(TABLE, seen), new_chain(TABLE, "other"), new_chain(TABLE, "c", hook)]
        link.commit([*objects, append_rule(TABLE, "c", rule)])
        read = [each.expressions for each in read_table(link, TABLE).rules["c"]]
        assert read == [rule]
        listed()
        link.commit([flush_chain(TABLE, "c"), append_rule(TABLE, "c", read[0])])
        assert [each.expressions for each in read_table(link, TABLE).rules["c"]] == read
        listed("-j")

    def test_an_unknown_expression_is_kept(self, link):
        run(Command(("nft", "add table t; add chain t c; add rule t c quota over 25 mbytes drop")))
        ((rule,),) = (read_table(link, TABLE).rules["c"],)
        assert [type(part) for part in rule.expressions] == [UnknownExpr, ImmediateExpr]
        link.commit([append_rule(TABLE, "c", rule.expressions)])
        assert listed().count("quota over 25 mbytes drop") == 2


class TestElements:
    def test_intervals(self, link):
        ranges = KernelSet("ranges", INTERVAL, IPV4, 4)
        prefixes = [
            KernelElement(b"\0\0\0\0", flags=1),
            KernelElement(b"\x0a\0\0\0"),
            KernelElement(b"\x0b\0\0\0", flags=1),
        ]
        link.commit([new_table(TABLE), new_set(TABLE, ranges), *elements.add(TABLE, "ranges", prefixes)])
        assert "elements = { 10.0.0.0/8 }" in listed()
        assert sorted(read_table(link, TABLE).elements["ranges"]) == prefixes
        link.commit(list(elements.delete(TABLE, "ranges", prefixes[1:])))
        assert "elements" not in listed()

    def test_concatenated_intervals(self, link):
        kind = KernelSet("ranges", INTERVAL | CONCAT, IPV4 << 6 | PORT, 8, fields=(4, 2))
        element = KernelElement(b"\x0a\0\0\0\0\x50\0\0", key_end=b"\x0a\xff\xff\xff\0\x50\0\0")
        link.commit([new_table(TABLE), new_set(TABLE, kind), *elements.add(TABLE, "ranges", [element])])
        assert "10.0.0.0/8 . 80" in listed()
        table = read_table(link, TABLE)
        assert (table.sets["ranges"], table.elements["ranges"]) == (kind, (element,))
        link.commit(list(elements.delete(TABLE, "ranges", [element])))
        assert "elements" not in listed()

    def test_timeouts_comments_and_the_element_for_all_others(self, link):
        kind = KernelSet("marks", MAP | TIMEOUT, IPV4, 4, MARK, 4, timeout_ms=60_000)
        written = [
            KernelElement(b"\x0a\0\0\1", b"\1\0\0\0", timeout_ms=9000, user_data=b"\0\4why\0"),
            KernelElement(b"", b"\2\0\0\0", flags=CATCH_ALL),
        ]
        link.commit([new_table(TABLE), new_set(TABLE, kind), *elements.add(TABLE, "marks", written)])
        read = {each.key: each for each in read_table(link, TABLE).elements["marks"]}
        first, other = read[b"\x0a\0\0\1"], read[b""]
        assert first._replace(expiration_ms=None) == written[0]
        assert 0 < first.expiration_ms <= 9000
        assert (other.data, other.flags) == (b"\2\0\0\0", CATCH_ALL)
        assert 'comment "why"' in listed()

    @pytest.mark.parametrize("length", [1, 2, 4])
    def test_keys_and_data_of_any_length(self, link, length):
        kind = KernelSet("m", MAP, {1: PROTOCOL, 2: PORT, 4: IPV4}[length], length, IPV4, 4)
        keys = [number.to_bytes(length, "big") for number in range(1, 200)]
        pairs = [(key, b"\x0a\0\0" + key[-1:]) for key in keys]
        verdicts = [(key, KernelVerdict(GOTO, "c")) for key in keys]
        link.commit(
            [
                new_table(TABLE),
                new_chain(TABLE, "c"),
                new_set(TABLE, kind),
                new_set(TABLE, kind._replace(name="v", data_type=VERDICT_TYPE, data_length=16)),
                new_set(TABLE, kind._replace(name="s", flags=0, data_type=None, data_length=None)),
                *elements.add_pairs(TABLE, "m", pairs, is_new=True),
                *elements.add_pairs(TABLE, "v", verdicts, is_new=True),
                *elements.add_pairs(TABLE, "s", [(key, None) for key in keys], is_new=True),
            ]
        )
        read = read_table(link, TABLE).elements
        assert sorted(read["m"]) == [KernelElement(*pair) for pair in pairs]
        assert sorted(read["v"]) == [KernelElement(*pair) for pair in verdicts]
        assert sorted(each.key for each in read["s"]) == keys
        for name in "mvs":
            link.commit(list(elements.delete_keys(TABLE, name, keys)))
        assert set(map(len, read_table(link, TABLE).elements.values())) == {0}
