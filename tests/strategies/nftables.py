"""Random objects of nftables that rulegen writes, in the one form that the readers give them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import accumulate

from hypothesis import strategies as st

from rulegen.languages.nftables.canonical import constant, constants
from rulegen.languages.nftables.expressions import (
    AnonymousMap,
    Bits,
    Bitwise,
    Concat,
    Ct,
    Expression,
    Fib,
    Literal,
    MapLookup,
    Meta,
    Numgen,
    Payload,
    SetReference,
    VerdictCode,
)
from rulegen.languages.nftables.state import (
    BaseChain,
    ElementValue,
    NamedSet,
    NftChain,
    NftKey,
    NftObjects,
    NftValue,
    TableValue,
    chain_key,
    element_key,
    set_key,
    table_key,
)
from rulegen.languages.nftables.statements import (
    Assign,
    Compare,
    CountPackets,
    Dnat,
    MasqueradeSource,
    NftRule,
    NftStatement,
    RejectPacket,
    UpdateSet,
    VerdictLookup,
)
from rulegen.net import Family

TABLE = "rules"
CHAINS = ("a", "service-ABCDEFGH-shop/web/tcp/http", "c")
PORTS = st.integers(1, 65535).map(str)
PROTOCOLS = st.sampled_from(["tcp", "udp", "sctp"])
VERDICTS = st.one_of(
    st.sampled_from([VerdictCode("accept"), VerdictCode("drop"), VerdictCode("return")]),
    st.builds(VerdictCode, st.sampled_from(["jump", "goto"]), st.sampled_from(CHAINS)),
)
MARKS = st.integers(1, 0xFFFFFFFE)


def header(family: Family) -> str:
    return "ip" if family is Family.IPV4 else "ip6"


def addresses(family: Family) -> st.SearchStrategy[str]:
    if family is Family.IPV4:
        return st.integers(0x0A000000, 0xDF000000).map(lambda number: str(IPv4Address(number)))
    return st.integers(0xFD << 120, (0xFD << 120) + (1 << 110)).map(lambda number: str(IPv6Address(number)))


def prefixes(family: Family) -> st.SearchStrategy[str]:
    bits = 32 if family is Family.IPV4 else 128
    network = IPv4Network if family is Family.IPV4 else IPv6Network
    lengths = st.integers(4, bits - 1)
    return st.builds(lambda address, length: str(network((address, length), strict=False)), addresses(family), lengths)


def sets(family: Family) -> dict[str, NamedSet]:
    """Return the sets and maps of every table: each form that rulegen writes."""
    address = "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"
    frontend = (address, "inet_proto", "inet_service")
    return {
        "addresses": NamedSet((address,)),
        "hairpins": NamedSet((address, address, "inet_proto", "inet_service")),
        "ranges": NamedSet((address,), flags=frozenset({"interval"})),
        "sources": NamedSet((*frontend, address), flags=frozenset({"interval"}), size=4096),
        "frontends": NamedSet(frontend, ("verdict",), size=65536),
        "node-ports": NamedSet(("inet_proto", "inet_service"), ("verdict",)),
        "endpoints": NamedSet((*frontend, "mark"), (address, "inet_service"), size=65536),
        "marks": NamedSet((address,), ("mark",)),
        "learnt": NamedSet((address,), flags=frozenset({"timeout"}), timeout_s=10800, size=65535),
    }


def keys_of(name: str, family: Family) -> st.SearchStrategy[tuple[str, ...]]:
    address, frontend = addresses(family), (addresses(family), PROTOCOLS, PORTS)
    network = st.one_of(prefixes(family), address)
    return {
        "addresses": st.tuples(address),
        "hairpins": st.tuples(address, address, PROTOCOLS, PORTS),
        "ranges": st.tuples(address.map(_apart)),
        "sources": st.tuples(*frontend, network),
        "frontends": st.tuples(*frontend),
        "node-ports": st.tuples(PROTOCOLS, PORTS),
        "endpoints": st.tuples(*frontend, st.integers(0, 9).map(lambda number: f"0x{number:08x}")),
        "marks": st.tuples(address),
    }[name]


def _apart(text: str) -> str:
    """Return an address that is never beside another one: nft lists neighbours in a set of intervals as one."""
    return str(type(ip_address(text))(int(ip_address(text)) & ~3))


def data_of(name: str, family: Family) -> st.SearchStrategy[ElementValue]:
    values: dict[str, st.SearchStrategy[object]] = {
        "frontends": VERDICTS,
        "node-ports": VERDICTS,
        "endpoints": st.tuples(addresses(family), PORTS),
        "marks": MARKS.map(lambda number: (f"0x{number:08x}",)),
    }
    return st.builds(ElementValue, values.get(name, st.none()))


@st.composite
def elements(draw: st.DrawFn, family: Family) -> dict[NftKey, NftValue]:
    content: dict[NftKey, NftValue] = {}
    for name, known in sets(family).items():
        if not known.is_learnt:
            for key in draw(st.lists(keys_of(name, family), max_size=6)):
                content[element_key(TABLE, name, key)] = draw(data_of(name, family))
    return content


@st.composite
def comparisons(draw: st.DrawFn, family: Family) -> NftStatement:
    source, target = (Payload(header(family), field) for field in ("saddr", "daddr"))
    frontend = Concat((target, Meta("l4proto"), Payload("th", "dport")))
    equality = draw(st.sampled_from(["==", "!="]))
    match draw(st.integers(0, 11)):
        case 0:
            texts = draw(st.lists(st.one_of(addresses(family), prefixes(family)), min_size=1, max_size=4))
            return Compare(draw(st.sampled_from([source, target])), constants(source, texts), equality)
        case 1:
            return Compare(draw(st.sampled_from([source, target])), SetReference("addresses"), equality)
        case 2:
            return Compare(source, SetReference("ranges"), equality)
        case 3:
            return Compare(Ct("state"), draw(states()), "in")
        case 4:
            return Compare(Ct("status"), Literal("dnat"), "in")
        case 5:
            return Compare(Meta("l4proto"), Literal(draw(PROTOCOLS)), equality)
        case 6:
            ports = draw(st.lists(PORTS, min_size=1, max_size=3, unique=True))
            payload = Payload(draw(st.sampled_from(["th", "tcp", "udp"])), draw(st.sampled_from(["dport", "sport"])))
            return Compare(payload, constants(payload, ports), equality)
        case 7:
            mark: Expression = draw(st.sampled_from([Meta("mark"), Ct("mark")]))
            bits = draw(MARKS)
            left = Bitwise("&", mark, Bits(bits)) if draw(st.booleans()) else mark
            return Compare(left, Bits(0 if isinstance(left, Bitwise) else bits), equality)
        case 8:
            return Compare(Fib(("saddr",), "type"), Literal("local"), equality)
        case 9:
            interface = draw(st.sampled_from([Meta("iifname"), Meta("oifname")]))
            return Compare(interface, constant(interface, draw(st.sampled_from(["cbr0", "eth0.1", "cali*"]))), equality)
        case 10:
            return Compare(Concat((*frontend.parts, source)), SetReference("sources"), equality)
        case _:
            key = Concat((source, target, Meta("l4proto"), Payload("th", "dport")))
            return Compare(key, SetReference("hairpins"), equality)


def states() -> st.SearchStrategy[Expression]:
    names = st.lists(st.sampled_from(["new", "established", "related", "invalid"]), min_size=1, unique=True)
    return names.map(lambda chosen: constant(Ct("state"), ",".join(chosen)))


def marks_set() -> st.SearchStrategy[NftStatement]:
    mark = Meta("mark")
    return st.one_of(
        st.builds(lambda bits: Assign(mark, Bits(bits)), MARKS),
        st.builds(lambda bits: Assign(mark, Bitwise("|", mark, Bits(bits))), MARKS),
        st.builds(lambda bits: Assign(mark, Bitwise("^", mark, Bits(bits))), MARKS),
        st.just(Assign(Ct("mark"), mark)),
        st.just(Assign(mark, Ct("mark"))),
    )


@st.composite
def choices(draw: st.DrawFn, family: Family, *, is_loadable: bool) -> NftStatement:
    """Return what ends a rule in a nat chain: a translation, a verdict or a lookup of one."""
    address = addresses(family)
    target = Payload(header(family), "daddr")
    frontend = (target, Meta("l4proto"), Payload("th", "dport"))
    shares = draw(st.lists(st.sampled_from([1, 1, 2, 300]), min_size=1, max_size=5))
    choice = Numgen(draw(st.sampled_from(["random", "inc"])), sum(shares))
    places = [_numbers(first, share) for first, share in zip(accumulate([0, *shares]), shares, strict=False)]
    match draw(st.integers(0, 7)):
        case 0:
            return Dnat(Literal(draw(address)), Literal(draw(PORTS)))
        case 1:
            return Dnat(Literal(draw(address)))
        case 2:
            ends = [Concat((Literal(draw(address)), Literal(draw(PORTS)))) for _ in places]
            return Dnat(MapLookup(choice, AnonymousMap.of(zip(places, ends, strict=True))))
        case 3:
            verdicts = [draw(VERDICTS) for _ in places]
            return VerdictLookup(choice, AnonymousMap.of(zip(places, verdicts, strict=True)))
        case 4 if not is_loadable:
            return Dnat(MapLookup(Concat((*frontend, choice)), SetReference("endpoints")))
        case 5:
            return VerdictLookup(Concat(frontend), SetReference("frontends"))
        case 6:
            return VerdictLookup(Concat(frontend[1:]), SetReference("node-ports"))
        case _:
            return draw(VERDICTS.filter(lambda verdict: not verdict.target))


def _numbers(first: int, share: int) -> Literal:
    return Literal(str(first) if share == 1 else f"{first}-{first + share - 1}")


@st.composite
def rules(draw: st.DrawFn, family: Family, kind: str, *, is_loadable: bool) -> NftRule:
    """Return a rule for a chain of a kind: `nat`, `filter` or `source`; maybe only what nft loads as text, too."""
    start = draw(st.lists(comparisons(family), max_size=3))
    update = UpdateSet("update", SetReference("learnt"), Payload(header(family), "saddr"))
    ends: dict[str, st.SearchStrategy[NftStatement]] = {
        "nat": choices(family, is_loadable=is_loadable),
        "filter": st.one_of(
            st.sampled_from([RejectPacket(), RejectPacket("tcp reset"), update]),
            VERDICTS.filter(lambda verdict: not verdict.target),
        ),
        "source": st.sampled_from([MasqueradeSource(), MasqueradeSource(frozenset({"fully-random"}))]),
    }
    end = draw(ends[kind])
    needs_tcp = end == RejectPacket("tcp reset") or (isinstance(end, Dnat) and "@" not in str(end))
    middle = [] if needs_tcp else draw(st.sampled_from([[], [CountPackets()], [draw(marks_set())]]))
    return NftRule((*_with_protocol(start, end, needs_tcp=needs_tcp), *middle, end))


def _with_protocol(start: list[NftStatement], end: NftStatement, *, needs_tcp: bool) -> list[NftStatement]:
    """Return comparisons that decide about the protocol at most once.

    nft prints `th dport` as `tcp dport` after such a comparison, and then leaves the comparison out. As text, a
    translation of ports needs one.
    """
    if needs_tcp:
        of_tcp: NftStatement = Compare(Meta("l4proto"), Literal("tcp"))
        needed = [] if isinstance(end, RejectPacket) else [of_tcp]  # nft leaves it out before a reset
        return [*needed, *(each for each in start if "l4proto" not in str(each) and "port" not in str(each))]
    has_any = any("th " in str(each) for each in (*start, end))
    deciding = [each for each in start if str(each).startswith(("meta l4proto", "tcp", "udp"))]
    left_out = deciding if has_any else deciding[1:]
    return [each for each in start if not any(each is other for other in left_out)]


@st.composite
def tables(draw: st.DrawFn, family: Family, most: int = 4, *, is_loadable: bool = False) -> NftObjects:
    """Return a table with all sets, random elements, and chains of random rules."""
    objects: NftObjects = {table_key(TABLE): TableValue()}
    objects |= {set_key(TABLE, name): known for name, known in sets(family).items()}
    objects |= draw(elements(family))
    for name in CHAINS:
        objects[chain_key(TABLE, name)] = NftChain()
    bases = {
        "nat": BaseChain("nat", "prerouting", draw(st.sampled_from([-100, -90]))),
        "filter": BaseChain("filter", "input", draw(st.integers(-5, 5)), draw(st.sampled_from(["accept", "drop"]))),
        "source": BaseChain("nat", "postrouting", 100),
    }
    for kind, base in bases.items():
        if draw(st.booleans()):
            content = draw(st.lists(rules(family, kind, is_loadable=is_loadable), max_size=most))
            objects[chain_key(TABLE, f"base-{kind}")] = NftChain(tuple(content), base)
    return objects
