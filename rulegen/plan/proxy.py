"""Changes of the configuration of a proxy, file by file, as lines. The content of a secret is never included."""

from __future__ import annotations

import difflib
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.diff.changes import diff
from rulegen.diff.items import Action, Drift, Item, Line
from rulegen.plan.ingress import EVERY_OTHER, IngressPlan

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.languages.configuration import Configuration

CONTEXT: Final = 2
SHOWN: Final = 120
"""Maximum number of lines of a new file that are shown; for a longer file, only the number of lines is shown."""
_SECRET_KINDS: Final = {
    "htpasswd": "password file",
    "passwords": "password file",
    "cfg": "password file",
    "crl": "list of revoked certificates",
}


class PlannedProxy(NamedTuple):
    """How the changes of one proxy are shown.

    Attributes:
        language: The name of the proxy.
        main: The main file, which has the digest of the configuration.
        digest: Matches this digest, which depends on all other files and is not shown.
        named: Returns the purpose of an obsolete file, kind and name, from its path and content.
    """

    language: str
    main: str
    digest: re.Pattern[str]
    named: Callable[[str, str], tuple[str, str]]

    def plan_ending(self, folder: str, *, exists: bool, runs: bool) -> IngressPlan:
        """Return the plan that removes all state of the proxy.

        Args:
            folder: The folder that it runs from.
            exists: Whether the folder exists.
            runs: Whether the program or its supervisor runs in it.
        """
        process = Item(
            action=Action.DELETE,
            language=self.language,
            family="",
            kind="process",
            name=self.language,
            lines=(Line("-", f"runs in {folder}; it finishes its requests, then stops"),),
        )
        place = Item(
            action=Action.DELETE,
            language=self.language,
            family="",
            kind="folder",
            name=folder,
            lines=(Line("-", folder),),
        )
        items = (*([process] if runs else []), *([place] if exists else []))
        return IngressPlan(self.language, items, runs=runs, ends=True)

    def plan_site(
        self,
        observed: Configuration | None,
        desired: Configuration,
        names: Mapping[str, tuple[str, str]],
        served: str | None = None,
    ) -> IngressPlan:
        """Return the changes of files that the proxy needs to serve the desired configuration.

        Args:
            observed: The served configuration; None if nothing is served.
            desired: The desired configuration.
            names: Purpose of each file: kind and name.
            served: The digest that the program returns; empty if it does not run; None if it was not asked.
        """
        before = dict(observed.files) if observed else {}
        files = [
            self._item(change.key, change.before, change.after, names) for change in diff(before, dict(desired.files))
        ]
        secrets = {path: secret.content for path, secret in observed.secrets.items()} if observed else {}
        hidden = diff(secrets, {path: secret.content for path, secret in desired.secrets.items()})
        items = [item for item in files if item is not None]
        items += [self._secret(change.key, change.before, change.after) for change in hidden]
        order = ("host", "upstream", "file", "secret")
        items.sort(key=lambda item: (order.index(item.kind), item.name))
        if served is not None and served != desired.digest and not items:
            items.append(self._process(served))
        return IngressPlan(self.language, tuple(items), reload=bool(items), runs=served != "")

    def _process(self, served: str) -> Item:
        """Return the item for a program that does not serve the configuration of its files."""
        state = f"serves {served}" if served else "does not run"
        return Item(
            action=Action.CHANGE if served else Action.ADD,
            language=self.language,
            family="",
            kind="process",
            name=self.language,
            drift=Drift.MISSING,
            lines=(Line("-", state), Line("+", "serves the configuration in its folder")),
        )

    def _item(
        self, path: str, before: str | None, after: str | None, names: Mapping[str, tuple[str, str]]
    ) -> Item | None:
        kind, name = names.get(path) or self.named(path, before or after or "")
        lines = tuple(_lines(self._plain(path, before), self._plain(path, after)))
        if not lines:
            return None
        return Item(
            action=_action(before, after),
            language=self.language,
            family="",
            kind=kind,
            name=name or EVERY_OTHER,
            lines=lines,
        )

    def _secret(self, path: str, before: object, after: object) -> Item:
        kind = _SECRET_KINDS.get(path.rpartition(".")[2], "certificate")
        line = Line("+" if before is None else "-", f"{path} ({kind}; its content is not shown)")
        action = _action(before, after)
        return Item(action=action, language=self.language, family="", kind="secret", name=path, lines=(line,))

    def _plain(self, path: str, text: str | None) -> list[str]:
        """Return the lines of a file, without the digest in the main file, which depends on all other files."""
        if text is None:
            return []
        return (self.digest.sub("(digest)", text) if path == self.main else text).splitlines()


def _action(before: object, after: object) -> Action:
    if before is None:
        return Action.ADD
    return Action.DELETE if after is None else Action.CHANGE


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
