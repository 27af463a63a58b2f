"""Saved dumps: the state of a node from files instead of the kernel. The content of a file shows its kind.

The dumps of ipvs mode are `ipvsadm -Sn`, `ipset save`, `ip -br addr show kube-ipvs0`, `ipvsadm -Ln --timeout` and
`sysctl -a`. The tools print nothing if the kernel has no rules or virtual servers. The kind of an empty file follows
from its name, or from the one kind that is missing. A truncated file is an error. A table that a dump lacks is unknown,
and never counts as empty.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from rulegen.compiler.tables import LANGUAGES
from rulegen.errors import InputError
from rulegen.host.files.lookalikes import ADDRESSES, meaning_in_folder, no_dump, no_rules
from rulegen.host.files.manifests import MAX_TOTAL_BYTES, STDIN, NoTextError, hint_of, read_text
from rulegen.host.files.output import COMPANIONS, TABLES_OF
from rulegen.languages.addresses import state as links
from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.ruleset import TABLES, Ruleset, family_in, is_dump, read
from rulegen.languages.ipvs import text as ipvs_text
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.state import IpvsState
from rulegen.languages.nftables.language import FILE as NFTABLES_FILE
from rulegen.languages.nftables.language import FIRST_LINE
from rulegen.languages.nftables.read_json import is_json_dump
from rulegen.languages.nftables.read_text import is_text_dump
from rulegen.net import Family
from rulegen.ownership.virtual_servers import DEVICE
from rulegen.safe_files import read_begin, size_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rulegen.languages.ipvs import state as ipvs
    from rulegen.languages.language import Language, StateKey

T = TypeVar("T")

MAX_FILES: Final = 1_000
"""The most files that are read from one folder."""
MAX_LINES: Final = 500_000
"""The most lines of one dump; iptables-save prints 420,000 for 30,000 Services with three endpoints each."""
MAX_LINE: Final = 16 * 1024
"""The longest line; the tools print less than 4 KiB, because a comment has at most 255 characters."""

_DEVICE: Final = re.compile(rf"^{re.escape(DEVICE)}(?:@\S+)?\s.*$", re.MULTILINE)
_NFTABLES: Final = re.compile(re.escape(FIRST_LINE))
_SYSCTLS: Final = re.compile(r"(?:[#;][^\n]*\n)*[a-z][a-z0-9_]*\.\S+ *=")
_MATCH_SET: Final = re.compile(r"--match-set (\S+)")


@dataclass(slots=True)
class Dumps:
    """The content of saved dumps; None for kinds without a dump.

    Attributes:
        rulesets: The rules by family, each with its unknown tables.
        sets, servers: All ipsets and virtual servers, ours and foreign ones.
        links: Our dummy device and its addresses.
        timeouts: The IPVS connection timeouts.
        others: The states of all other languages, by language and family.
        sysctls: Kernel parameters by name.
        warnings: Warnings about files, such as empty ones and those that are no dumps.
    """

    rulesets: dict[Family, Ruleset] = field(default_factory=dict)
    sets: ipset.Objects | None = None
    servers: ipvs.Objects | None = None
    links: links.Links | None = None
    timeouts: ipvs.Timeouts | None = None
    others: dict[StateKey, Any] = field(default_factory=dict)
    sysctls: dict[str, str] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def states(self) -> dict[StateKey, Any]:
        """The observed states by language."""
        states: dict[StateKey, Any] = {(IPTABLES, family): ruleset for family, ruleset in self.rulesets.items()}
        if self.sets is not None:
            states[IPSET, None] = self.sets
        if self.servers is not None or self.timeouts is not None:
            states[IPVS, None] = IpvsState(self.servers, self.timeouts)
        if self.links is not None:
            states[LINKS, None] = self.links
        return states | self.others


def read_dumps(
    paths: Sequence[str],
    languages: Mapping[str, Language] = LANGUAGES,
    *,
    needs_rules: bool = True,
    skip: Collection[str] = (),
) -> Dumps:
    """Return the content of dumps of iptables-save, ip6tables-save, and optionally other tools.

    If a dump of iptables has no address that shows its family, its name decides, else the family that is missing.

    Args:
        paths: Files, also compressed by gzip; folders, without their subfolders; `-` for standard input.
        languages: The languages by name.
        needs_rules: Whether a dump of iptables is required. Else any dump is enough, and dumps of other languages
            that have families, such as nftables, are read too.
        skip: Names of files in folders that are not read.

    Raises:
        InputError: A file cannot be read, is truncated, or has a table that the tool could not print; a named file is
            no dump; two dumps have the same kind and family; or two contradict each other.
    """
    rulesets: dict[str, _DumpedRules] = {}
    empty: dict[str, bool] = {}
    dumps = Dumps()
    warnings: list[str] = []
    read_as = _Readers(languages, by_family=not needs_rules)
    left = MAX_TOTAL_BYTES
    for file, is_named, is_export in _files(paths):
        if not is_named and Path(file).name in skip:
            continue
        text = _text(file, is_named=is_named)
        left -= len(text or "")
        if left < 0:
            raise InputError(_shown(file), f"together with the dumps before it, more than {size_text(MAX_TOTAL_BYTES)}")
        is_companion = is_export and Path(file).name in COMPANIONS
        if text is not None and is_dump(text):
            rulesets[_shown(file)] = _rules(text, _shown(file))  # frees the text
        elif text is not None and not text.strip():
            if not is_companion:
                empty[_shown(file)] = is_named
        elif (text is not None and _take(dumps, _shown(file), text, read_as)) or is_companion:
            continue
        elif is_named:
            raise no_dump(_shown(file), text or "")
        else:
            warnings.append(f"{file} is not a dump of a known kind and was ignored{meaning_in_folder(text or '')}")
    families = _families(rulesets)
    warnings += _take_empty(dumps, empty, families)
    if not families and (needs_rules or not dumps.states):
        raise no_rules(paths, tuple(empty), warnings)
    for family, file in sorted(families.items()):
        rules = rulesets.get(file)
        dumps.rulesets[family] = _ruleset(rules, file, family, warnings) if rules else Ruleset(family)
    _refuse_missing_sets(dumps)
    dumps.warnings = tuple(warnings)
    return dumps


class _DumpedRules(msgspec.Struct, frozen=True):
    """The content of one dump of iptables.

    Attributes:
        ruleset: Its rules.
        family: Its family; None if the content does not show it.
        named: The tables in its first line, if it is an export of rulegen.
    """

    ruleset: Ruleset
    family: Family | None
    named: frozenset[str] | None


def _rules(text: str, file: str) -> _DumpedRules:
    """Return the content of one dump of iptables.

    Raises:
        InputError: The dump cannot be read.
    """
    family = family_in(text) or (Family.IPV6 if _is_named_ipv6(file) else None)
    match = TABLES_OF.match(text)
    return _DumpedRules(read(text, file, family or Family.IPV4), family, frozenset(match[1].split()) if match else None)


def _ruleset(rules: _DumpedRules, file: str, family: Family, warnings: list[str]) -> Ruleset:
    """Return the rules of one dump, and warn of missing tables. The first line of an export lists its tables.

    Raises:
        InputError: An export lacks a table of its first line.
    """
    ruleset = rules.ruleset
    ruleset.family = family
    if rules.named is not None:
        missing = sorted(rules.named - ruleset.tables)
        if missing:
            raise InputError(
                file,
                f"the table {missing[0]} is missing, although the first line of the file lists it",
                hint="export again",
            )
        return ruleset
    ruleset.unknown = frozenset(TABLES) - ruleset.tables
    if ruleset.unknown:
        names = " and ".join(sorted(ruleset.unknown))
        warnings.append(
            f"{file} has no table {names}: the node's state there is unknown and not in the plan"
            " (iptables-save without -t saves all tables)"
        )
    return ruleset


def _refuse_missing_sets(dumps: Dumps) -> None:
    """Check that the dump of sets has all sets that rules match; no kernel has such a rule without its set.

    Raises:
        InputError: A set is missing.
    """
    if dumps.sets is None:
        return
    names = {key.name for key in dumps.sets}
    for ruleset in dumps.rulesets.values():
        for _, rule in ruleset.rules():
            match = _MATCH_SET.search(rule.spec) if "--match-set" in rule.spec else None
            if match and match[1] not in names:
                raise InputError(
                    "the dump of sets",
                    f"the set {match[1]} is missing, which a rule of {ruleset.family} refers to",
                    hint="save all sets with `ipset save`, at the same time as the rules",
                )


class _Readers(NamedTuple):
    """The languages whose dumps are read, and whether states by family are."""

    languages: Mapping[str, Language]
    by_family: bool


def _take(dumps: Dumps, file: str, text: str, readers: _Readers) -> bool:
    """Add the text if it is a dump of ipvs mode; return whether it is.

    Raises:
        InputError: The dump cannot be read, or is the second of its kind.
    """
    timeouts = ipvs_text.read_timeouts(text)
    if timeouts is not None:
        _refuse_cut(file, text)
        dumps.timeouts = _only(dumps.timeouts, timeouts, file)
    elif ipvs_text.is_dump(text):
        _refuse_cut(file, text)
        dumps.servers = _only(dumps.servers, ipvs_text.read(text, file), file)
    elif ipset.is_dump(text):
        _refuse_cut(file, text)
        dumps.sets = _only(dumps.sets, ipset.read(text, file), file)
    elif ADDRESSES.match(text) and (lines := _DEVICE.findall(text)):
        _refuse_cut(file, text)
        dumps.links = _only(dumps.links, links.read("\n".join(lines), file), file)
    elif _SYSCTLS.match(text):
        _refuse_cut(file, text)
        dumps.sysctls = _only(dumps.sysctls, _sysctls(text, file), file)
    else:
        return _take_other(dumps, file, text, readers)
    return True


def _take_other(dumps: Dumps, file: str, text: str, readers: _Readers) -> bool:
    """Add the text if it is a dump of another language; return whether it is."""
    for name, language in readers.languages.items():
        state = language.read_dump(text, file)
        if state is not None:
            _refuse_cut(file, text)
            dumps.others[name, None] = _only(dumps.others.get((name, None)), state, file)
            return True
        states = language.read_family_dump(text, file) if readers.by_family else None
        if states is not None:
            _refuse_cut(file, text)
            for family, objects in states.items():
                dumps.others[name, family] = _only(dumps.others.get((name, family)), objects, file)
            return True
    return False


def _sysctls(text: str, file: str) -> dict[str, str]:
    """Return the kernel parameters in the output of `sysctl -a`.

    Raises:
        InputError: A line has another format.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name, equals, value = line.partition("=")
        if line.strip() and not line.lstrip().startswith(("#", ";")):
            if not equals and not line.startswith("sysctl: "):  # a message of the tool
                raise InputError(file, f"line {number}: not a line of sysctl -a: {line[:80]!r}")
            values[name.strip()] = value.strip()
    return values


def _refuse_cut(file: str, text: str) -> None:
    """Check that the last line ends with a line break, as in the output of every tool; a closing brace ends JSON.

    Raises:
        InputError: The text is truncated.
    """
    if not text.endswith(("\n", "}")):
        raise InputError(file, "ends in the middle of its last line", hint="copy or save the complete file again")


def _take_empty(dumps: Dumps, empty: dict[str, bool], families: dict[Family, str]) -> Iterator[str]:
    """Assign empty files to the kinds that their names show, or that are missing; yield a warning for each.

    Args:
        dumps: The content of the other files; gets the empty states.
        empty: The empty files, each with whether a user named it.
        families: The dumps of iptables by family; gets the empty ones. Without any other dump, an empty file is none.

    Raises:
        InputError: A file is the second of its kind.
    """
    has_rules = bool(families)
    for file, is_named in empty.items():
        name = Path(file).name.lower()
        missing = [family for family in Family if family not in families]
        if "ipvsadm" in name:
            dumps.servers, what = _only(dumps.servers, {}, file), "virtual servers"
        elif "ipset" in name:
            dumps.sets, what = _only(dumps.sets, {}, file), "ipsets"
        elif name.endswith(".addr"):
            dumps.links, what = _only(dumps.links, links.Links(), file), "kube-ipvs0"
        elif has_rules and missing and (is_named or "tables" in name or _is_named_ipv6(file)):
            family = missing[0] if len(missing) == 1 else Family.IPV6 if _is_named_ipv6(file) else Family.IPV4
            families[family], what = file, f"{family} rules"
        elif is_named and not has_rules:
            continue
        elif is_named:
            raise InputError(file, "is empty, but there are dumps of both families already", hint="leave this file out")
        else:
            yield f"{file} is empty and was ignored"
            continue
        yield f"{file} is empty: rulegen assumes that the node has no {what}, because the tools then print nothing"


def _only(known: T | None, new: T, file: str) -> T:
    if known is not None:
        raise InputError(file, "is a second dump of the same kind", hint="give one dump of each kind")
    return new


def _files(paths: Sequence[str]) -> Iterator[tuple[str, bool, bool]]:
    """Yield each file, whether a user named it, and whether it is in an export of rulegen."""
    for path in dict.fromkeys(paths):
        folder = Path(path)
        if path == STDIN or not os.path.isdir(path):  # noqa: PTH112 - of what cannot be looked at, its reader says why
            yield path, True, path != STDIN and _is_export(folder.parent)
            continue
        try:
            files = sorted(str(file) for file in islice(folder.iterdir(), MAX_FILES + 1) if file.name[:1] != ".")
        except OSError as error:
            raise InputError(path, (error.strerror or str(error)).lower(), hint=hint_of(error)) from None
        if len(files) > MAX_FILES:
            raise InputError(
                path, f"more than {MAX_FILES} files in this folder", hint="give a folder that has only the dumps"
            )
        is_export = _is_export(folder)
        for file in files:
            is_model = is_export and file.endswith(".json")  # such a file may be larger than any dump
            if not is_model and not os.path.isdir(file):  # noqa: PTH112 - as above
                yield file, False, is_export


def _is_export(folder: Path) -> bool:
    """Whether `rulegen export` wrote rules to a folder, judged by their first line."""
    for name, first in (("iptables.save", TABLES_OF), ("ip6tables.save", TABLES_OF), (NFTABLES_FILE, _NFTABLES)):
        try:
            begin = read_begin(folder / name, 1024, folder=folder)
        except OSError:
            continue
        if first.match(begin.decode("utf-8", "replace")):
            return True
    return False


def _shown(file: str) -> str:
    return "stdin" if file == STDIN else file


def _text(file: str, *, is_named: bool) -> str | None:
    """Return the text of a file; None for an entry of a folder that is no file, or no text.

    Raises:
        InputError: The file cannot be read, or is too large. It may be a dump, so it must not be left out.
    """
    try:
        if not is_named and not Path(file).is_file():
            return None
        text = read_text(file, takes_stdin=is_named, folder=None if is_named else str(Path(file).parent))
    except NoTextError:
        if is_named:
            raise
        return None
    except PermissionError as error:
        raise InputError(file, (error.strerror or str(error)).lower(), hint=hint_of(error)) from None
    _refuse_endless(text, _shown(file))
    return text


def _refuse_endless(text: str, file: str) -> None:
    """Check the number and length of lines against those that tools print, before the text is parsed.

    Raises:
        InputError: There are too many lines, or too long ones.
    """
    if text.count("\n") > MAX_LINES:
        raise InputError(file, f"more than {MAX_LINES} lines: not read")
    if is_json_dump(text) or is_text_dump(text):  # nft prints all endpoints of a Service, or the whole JSON, on a line
        return
    start = 0
    while len(text) - start > MAX_LINE:
        end = text.rfind("\n", start, start + MAX_LINE + 1)
        if end < 0:
            line = text.count("\n", 0, start) + 1
            raise InputError(file, f"line {line} is longer than {size_text(MAX_LINE)}: no tool prints such a line")
        start = end + 1


def _families(rulesets: Mapping[str, _DumpedRules]) -> dict[Family, str]:
    """Return the dump of each family."""
    files: dict[Family, str] = {}
    for file, rules in rulesets.items():
        if rules.family is not None:
            _claim(files, rules.family, file)
    for file in (file for file, rules in rulesets.items() if rules.family is None):
        _claim(files, Family.IPV6 if Family.IPV4 in files and "ip6" not in files[Family.IPV4] else Family.IPV4, file)
    return files


def _is_named_ipv6(file: str) -> bool:
    name = Path(file).name.lower()
    return any(part in name for part in ("ip6", "ipv6", "v6"))


def _claim(files: dict[Family, str], family: Family, file: str) -> None:
    other = files.setdefault(family, file)
    if other != file:
        raise InputError(
            file, f"a second dump for {family}; the first is {other}", hint="give one dump for each family"
        )
