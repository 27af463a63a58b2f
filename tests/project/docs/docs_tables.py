"""Writes the tables of annotations and settings in docs/ from their declarations, between markers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rulegen.backends.haproxy import obeyed as haproxy_obeyed
from rulegen.backends.haproxy.obeyed import Obedience, Obeyed
from rulegen.model.ingress.values.annotations.table import SECTIONS, declared_in
from rulegen.model.ingress.values.annotations.unsupported import UNSUPPORTED
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS
from rulegen.model.ingress.values.without_effect.flags import FLAGS
from rulegen.model.ingress.values.without_effect.names import NameKind, NoEffect
from rulegen.model.ingress.values.without_effect.settings import WITHOUT_EFFECT
from rulegen.model.services.annotations.table import ANNOTATIONS as SERVICE_ANNOTATIONS
from tests.project.places import ROOT

_MARKED: Final = re.compile(
    r"<!-- table: (?P<name>[\w -]+?) -->\n\n(?P<text>(?:\|.*\n|\*\*.*\*\*\n|\n)*)<!-- end -->\n"
)


def _rows(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def annotations() -> Iterator[tuple[str, str]]:
    """Yield the tables of an Ingress's annotations, by the words after the marker's name."""
    for heading, module in SECTIONS.items():
        rows = (
            (f"`{known.name}`", known.documentation, known.invalid.name.lower())
            for known in declared_in(module).values()
        )
        yield (
            f"annotations {module.__name__.rpartition('.')[2]}",
            f"**{heading}**\n\n" + _rows(("annotation", "value", "if invalid"), rows),
        )
    yield "annotations without effect", _without_effect("annotation", UNSUPPORTED)


def _without_effect(what: str, known: Mapping[str, NoEffect], dashes: str = "") -> str:
    """Return the table of names without effect: those of one reason in one row, what protects first."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in sorted(known.values(), key=lambda row: list(_KINDS).index(row.kind)):
        kind = f"{_KINDS[row.kind]}; `--strict` fails" if dashes and row.deviates else _KINDS[row.kind]
        rows.setdefault((kind, row.reason), []).append(f"`{dashes}{row.name}`")
    return _rows((what, "", "why"), ((", ".join(names), kind, reason) for (kind, reason), names in rows.items()))


_KINDS: Final = {
    NameKind.PROTECTION: "**protects nothing here**",
    NameKind.MISSING: "not supported",
    NameKind.REPLACED: "of older releases",
    NameKind.DONE: "nothing to set",
}
"""How the tables call the kinds, in their order."""


def settings() -> str:
    """Return the table of the keys of the ConfigMap."""

    def rows() -> Iterator[tuple[str, ...]]:
        for key, known in SETTINGS.items():
            closing = [f"**if invalid, {known.guards.value}**"] * bool(known.guards.value)
            yield f"`{key}`", known.default, "; ".join([*[known.documentation] * bool(known.documentation), *closing])
        for name, key in OTHER_NAMES.items():
            yield f"`{name}`", "", f"another name of `{key}`"

    return _rows(("key", "default", ""), rows())


def of_services() -> str:
    """Return the table of a Service's annotations."""
    rows = (
        (f"`{name}`", ", ".join(known.modes) or "all", known.documentation)
        for name, known in sorted(SERVICE_ANNOTATIONS.items())
    )
    return _rows(("annotation", "modes", ""), rows)


def of_haproxy(rows: Mapping[str, Obedience], what: str) -> str:
    """Return the table of how HAProxy obeys names; those with the same words in one row, what has no effect first."""
    kinds = {Obeyed.NOT: "**no effect**", Obeyed.OTHERWISE: "different", Obeyed.AS_NGINX: "as with nginx"}
    by_row: dict[Obedience, list[str]] = {}
    for name, row in rows.items():
        by_row.setdefault(row, []).append(f"`{name}`")
    lines = sorted(by_row.items(), key=lambda pair: list(kinds).index(pair[0].how))
    return _rows((what, "with HAProxy", ""), ((", ".join(names), kinds[row.how], row.words) for row, names in lines))


def tables() -> Mapping[str, str]:
    """Return each table by the name in its marker."""
    return {
        **dict(annotations()),
        "settings": settings(),
        "settings without effect": _without_effect("key", WITHOUT_EFFECT),
        "flags without effect": _without_effect("flag", FLAGS, "--"),
        "annotations of Services": of_services(),
        "annotations with HAProxy": of_haproxy(haproxy_obeyed.ANNOTATIONS, "annotation"),
        "settings with HAProxy": of_haproxy(haproxy_obeyed.SETTINGS, "key"),
    }


def with_tables(page: str) -> str:
    """Return a page with its marked tables as the declarations have them."""
    known = tables()
    return _MARKED.sub(lambda m: f"<!-- table: {m['name']} -->\n\n{known[m['name']]}\n<!-- end -->\n", page)


def marked(page: str) -> list[str]:
    """Return the names of a page's marked tables, in order."""
    return [match["name"] for match in _MARKED.finditer(page)]


PAGES: Final[tuple[Path, ...]] = (ROOT / "docs/ingress.md", ROOT / "docs/ipvs.md", ROOT / "docs/haproxy.md")

if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
