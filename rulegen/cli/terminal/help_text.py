"""The text of `--help`: words stay whole, as in `ip6tables-save` and `--observed-dir`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"


class HelpText(click.HelpFormatter):
    """Wraps lines at spaces only; click would break a word after a hyphen."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of usage."""
        super().write_usage(_bound(prog), _bound(args), prefix)

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(_bound(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], *columns: Any, **widths: Any) -> None:
        """Write a list of names with descriptions."""
        super().write_dl([(_bound(name), _bound(text)) for name, text in rows], *columns, **widths)

    def getvalue(self) -> str:
        """Return the text."""
        return super().getvalue().replace(_HYPHEN, "-")


class HelpContext(click.Context):
    """The context of every command."""

    formatter_class = HelpText


def _bound(text: str) -> str:
    return text.replace("-", _HYPHEN)
