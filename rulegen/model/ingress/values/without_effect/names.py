"""Known names of ingress-nginx without effect in rulegen: annotations, ConfigMap keys and flags.

Each is declared once, with the reason or the replacement. Messages and the tables in docs/ingress.md use the
declarations.
"""

from __future__ import annotations

import enum
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.model.ingress.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable


class NameKind(enum.Enum):
    """Why a name has no effect."""

    DONE = "done anyway"
    """rulegen always does what it requests, or there is nothing to configure."""
    REPLACED = "replaced"
    """ingress-nginx has removed it, and there is a replacement."""
    MISSING = "not supported"
    """rulegen does not do what it requests."""
    PROTECTION = "not supported, protects nothing here"
    """rulegen does not do what it requests, and that may let requests in."""


OFF: Final = ("", "0", "f", "F", "false", "FALSE", "False", "off")
"""Values that switch something off."""


class NoEffect(NamedTuple):
    """A name without effect.

    Attributes:
        name: An annotation without its prefix, a ConfigMap key, or a flag without dashes.
        kind: Why it has no effect.
        reason: Effect in ingress-nginx, reason, or replacement.
        fulfilled_by: Values that request what rulegen does anyway; they are not reported.
        changes_served: Whether ingress-nginx serves something else with it; `--strict` fails then.
    """

    name: str
    kind: NameKind
    reason: str
    fulfilled_by: tuple[str, ...] = ()
    changes_served: bool = True

    @property
    def message(self) -> str:
        """Message for the user."""
        warning = " (it protects nothing here!)" if self.kind is NameKind.PROTECTION else ""
        return f"{_BEGINNINGS[self.kind]}{self.reason}{warning}"

    @property
    def verdict(self) -> Verdict:
        """Whether an Ingress with it is not served as specified."""
        return Verdict.UNSUPPORTED if self.deviates else Verdict.NOTE

    @property
    def deviates(self) -> bool:
        """Whether requests are then answered in another way than by ingress-nginx."""
        return self.changes_served and self.kind is not NameKind.DONE


_BEGINNINGS: Final = {
    NameKind.DONE: "no effect: ",
    NameKind.REPLACED: "no longer an option of ingress-nginx: ",
    NameKind.MISSING: "not supported: ",
    NameKind.PROTECTION: "not supported: ",
}


def by_name(*rows: NoEffect) -> dict[str, NoEffect]:
    """Return rows by name.

    Raises:
        ValueError: Two rows have the same name.
    """
    named = {row.name: row for row in rows}
    if len(named) != len(rows):
        raise ValueError("a name without effect is declared twice")
    return named


def question(name: str, known: Iterable[str]) -> str:
    """Return a "did you mean" question with the most similar known name; empty if none is similar."""
    near = get_close_matches(name[:100].lower().replace("_", "-"), list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""
