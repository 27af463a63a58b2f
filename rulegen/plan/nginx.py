"""Changes of nginx's configuration, file by file, as lines. The content of a secret is never included."""

from __future__ import annotations

import difflib
import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from rulegen.diff.changes import diff
from rulegen.diff.items import Action, Drift, Item, Line
from rulegen.languages.nginx.main_file import MAIN
from rulegen.plan.ingress import EVERY_OTHER, IngressPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.configuration import Configuration

LANGUAGE: Final = "nginx"
CONTEXT: Final = 2
SHOWN: Final = 120
"""Maximum number of lines of a new file that are shown; for a longer file, only the number of lines is shown."""

_DIGEST: Final = re.compile(r"\b[0-9a-f]{32}\b(?=;)")


def plan_ending(folder: str, *, exists: bool, runs: bool) -> IngressPlan:
    """Return the plan that removes all state of nginx.

    Args:
        folder: The folder that nginx runs from.
        exists: Whether the folder exists.
        runs: Whether nginx or its supervisor runs in it.
    """
    process = Item(
        action=Action.DELETE,
        language=LANGUAGE,
        family="",
        kind="process",
        name="nginx",
        lines=(Line("-", f"runs in {folder}; it finishes its requests, then stops"),),
    )
    place = Item(
        action=Action.DELETE, language=LANGUAGE, family="", kind="folder", name=folder, lines=(Line("-", folder),)
    )
    items = (*([process] if runs else []), *([place] if exists else []))
    return IngressPlan(LANGUAGE, items, runs=runs, ends=True)


def plan_site(
    observed: Configuration | None,
    desired: Configuration,
    names: Mapping[str, tuple[str, str]],
    served: str | None = None,
) -> IngressPlan:
    """Return the changes of files that nginx needs to serve the desired configuration.

    Args:
        observed: The served configuration; None if nginx serves nothing.
        desired: The desired configuration.
        names: Purpose of each file: kind and name.
        served: The digest that nginx returns; empty if it does not run; None if it was not asked.
    """
    before = dict(observed.files) if observed else {}
    files = [_item(change.key, change.before, change.after, names) for change in diff(before, dict(desired.files))]
    secrets = {path: secret.content for path, secret in observed.secrets.items()} if observed else {}
    hidden = diff(secrets, {path: secret.content for path, secret in desired.secrets.items()})
    items = [item for item in files if item is not None]
    items += [_secret(change.key, change.before, change.after) for change in hidden]
    order = ("host", "upstream", "file", "secret")
    items.sort(key=lambda item: (order.index(item.kind), item.name))
    if served is not None and served != desired.digest and not items:
        items.append(_process(served))
    return IngressPlan(LANGUAGE, tuple(items), reload=bool(items), runs=served != "")


def _process(served: str) -> Item:
    """Return the item for an nginx that does not serve the configuration of its files."""
    state = f"serves {served}" if served else "does not run"
    return Item(
        action=Action.CHANGE if served else Action.ADD,
        language=LANGUAGE,
        family="",
        kind="process",
        name="nginx",
        drift=Drift.MISSING,
        lines=(Line("-", state), Line("+", "serves the configuration in its folder")),
    )


def _item(path: str, before: str | None, after: str | None, names: Mapping[str, tuple[str, str]]) -> Item | None:
    kind, name = names.get(path) or _named(path, before or after or "")
    lines = tuple(_lines(_plain(path, before), _plain(path, after)))
    if not lines:
        return None
    return Item(
        action=_action(before, after), language=LANGUAGE, family="", kind=kind, name=name or EVERY_OTHER, lines=lines
    )


_SECRET_KINDS: Final = {"htpasswd": "password file", "crl": "list of revoked certificates"}


def _secret(path: str, before: object, after: object) -> Item:
    kind = _SECRET_KINDS.get(path.rpartition(".")[2], "certificate")
    line = Line("+" if before is None else "-", f"{path} ({kind}; its content is not shown)")
    action = _action(before, after)
    return Item(action=action, language=LANGUAGE, family="", kind="secret", name=path, lines=(line,))


def _action(before: object, after: object) -> Action:
    if before is None:
        return Action.ADD
    return Action.DELETE if after is None else Action.CHANGE


def _plain(path: str, text: str | None) -> list[str]:
    """Return the lines of a file, without the digest in the main file, which depends on all other files."""
    if text is None:
        return []
    return (_DIGEST.sub("(digest)", text) if path == MAIN else text).splitlines()


def _lines(before: list[str], after: list[str]) -> Iterator[Line]:
    if max(len(before), len(after)) > SHOWN and not (before and after):
        yield Line("+" if after else "-", f"({len(after or before)} lines)")
        return
    if not before or not after:
        yield from (Line("+" if after else "-", text) for text in after or before if text)
        return
    # The first two lines of a diff are the file names; other lines may start in the same way.
    for text in islice(difflib.unified_diff(before, after, lineterm="", n=CONTEXT), 2, None):
        yield Line(" ", "…") if text.startswith("@@") else Line(text[0], text[1:])


def _named(path: str, text: str) -> tuple[str, str]:
    """Return the purpose of an obsolete file, from its content."""
    if path.startswith("hosts/"):
        match = re.search(r"^ *server_name (\S+?)(?: .*)?;$", text, re.MULTILINE)
        name = match[1] if match else path
        return "host", "" if name == "_" else name
    if path.startswith("upstreams/"):
        match = re.search(r"^upstream ([^.\s]+\.[^.\s]+)", text, re.MULTILINE)
        return "upstream", match[1].replace(".", "/", 1) if match else path
    return "file", path
