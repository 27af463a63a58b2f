"""Names of ingress-nginx that are known and have no effect here: annotations, keys of the ConfigMap, and flags.

Each is declared once, with what it did and what stands for it. The messages and the tables of docs/ingress.md follow
from the declarations.
"""

from __future__ import annotations

import enum
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.model.ingress.reasons import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable


class NameKind(enum.Enum):
    """What kind of name without effect it is."""

    DONE = "done anyway"
    """What it asks for is done in any case, or there is nothing to set."""
    REPLACED = "replaced"
    """ingress-nginx has dropped it, and something else says the same."""
    MISSING = "not supported"
    """It asks for something that is not done."""
    PROTECTION = "not supported, protects nothing here"
    """It asks for something that is not done and that may keep somebody out."""


OFF: Final = ("", "0", "f", "F", "false", "FALSE", "False", "off")
"""Values that switch something off."""


class NoEffect(NamedTuple):
    """One name without effect.

    Attributes:
        name: As users write it: an annotation without its prefix, a key, or a flag without dashes.
        kind: What kind of name it is.
        reason: What it did, why it has no effect, or what stands for it.
        fulfilled_by: Values that ask for what is done here, so that there is nothing to report.
    """

    name: str
    kind: NameKind
    reason: str
    fulfilled_by: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What users read."""
        warning = " (it protects nothing here!)" if self.kind is NameKind.PROTECTION else ""
        return f"{_BEGINNINGS[self.kind]}{self.reason}{warning}"

    @property
    def verdict(self) -> Verdict:
        """Whether something is then not served as it was written."""
        return Verdict.NOTE if self.kind is NameKind.DONE else Verdict.UNSUPPORTED


_BEGINNINGS: Final = {
    NameKind.DONE: "no effect: ",
    NameKind.REPLACED: "no longer an option of ingress-nginx: ",
    NameKind.MISSING: "not supported: ",
    NameKind.PROTECTION: "not supported: ",
}


def by_name(*rows: NoEffect) -> dict[str, NoEffect]:
    """Return rows by their names.

    Raises:
        ValueError: Two have one name.
    """
    named = {row.name: row for row in rows}
    if len(named) != len(rows):
        raise ValueError("a name without effect is declared twice")
    return named


def question(name: str, known: Iterable[str]) -> str:
    """Return the question whether the most similar known name was meant; empty if none is similar."""
    near = get_close_matches(name[:100].lower().replace("_", "-"), list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else ""
