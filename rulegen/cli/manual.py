"""Man pages of the commands, from the same texts as `--help` (groff_man(7))."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

import click

from rulegen import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EXAMPLE: Final = "\b"
"""What click reads at the start of a paragraph whose lines are not joined."""


def man_page(context: click.Context, others: Sequence[str], exit_codes: Sequence[tuple[str, str]]) -> str:
    """Return the man page of a command or of a group of commands, in section 8.

    Args:
        context: The context of the command; its path is the title.
        others: Titles of other pages.
        exit_codes: Exit codes of all commands, each with its meaning.
    """
    title = context.command_path.replace(" ", "-")
    summary, _, rest = inspect.cleandoc(context.command.help or "").partition("\n\n")
    short = summary.partition(". ")[0].rstrip(".")
    lines = [
        f'.TH "{title.upper()}" 8 "" "rulegen {__version__}" "System Administration"',
        ".SH NAME",
        f"{escaped(title)} \\- {escaped(short[:1].lower() + short[1:])}",
        ".SH SYNOPSIS",
        f".B {escaped(context.command_path)}",
        escaped(" ".join(context.command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(f"{summary}\n\n{rest}\n\n{context.command.epilog or ''}"),
        *_options(context),
        *_commands(context),
        ".SH EXIT STATUS",
        *(line for code, meaning in exit_codes for line in (".TP", f".B {code}", escaped(meaning))),
        ".SH SEE ALSO",
        escaped(", ".join(f"{other}(8)" for other in others if other != title)),
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith(_EXAMPLE):
            yield from (".PP", ".nf", *(escaped(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield from (".PP", escaped(" ".join(paragraph.split())))


def _options(context: click.Context) -> Iterator[str]:
    records = [record for param in context.command.get_params(context) if (record := param.get_help_record(context))]
    if records:
        yield ".SH OPTIONS"
    for names, meaning in records:
        yield from (".TP", f".B {escaped(names)}", escaped(meaning))


def _commands(context: click.Context) -> Iterator[str]:
    """Yield the commands of a group."""
    if not isinstance(context.command, click.Group):
        return
    yield ".SH COMMANDS"
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        yield from (".TP", f".B {escaped(name)}", escaped(command.get_short_help_str(200) if command else ""))


def escaped(text: str) -> str:
    """Return a line that groff prints unchanged: no requests, no escapes, hyphens that can be copied."""
    plain = re.sub(r"\s+$", "", text).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
