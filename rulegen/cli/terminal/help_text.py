"""The text of `--help`: options in groups, and words that stay whole, as in `ip6tables-save`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

_HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"


class HelpText(click.HelpFormatter):
    """Wraps lines at spaces only, and lists options in groups; click would break a word after a hyphen."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the line of usage."""
        super().write_usage(_bound(prog), _bound(args), prefix)

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(_bound(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], *columns: Any, **widths: Any) -> None:
        """Write a list of names with descriptions."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, text in rows:
            groups.setdefault(_group(name), []).append((_bound(name), _bound(text)))
        super().write_dl(groups.pop("", []), *columns, **widths)
        for title in [title for title, _ in _GROUPS if title in groups]:
            self.dedent()
            self.write_paragraph()
            self.write_heading(title)
            self.indent()
            super().write_dl(groups[title], *columns, **widths)

    def getvalue(self) -> str:
        """Return the text."""
        return super().getvalue().replace(_HYPHEN, "-")


class HelpContext(click.Context):
    """The context of every command."""

    formatter_class = HelpText


_GROUPS: Final = (
    ("Objects", r"filename|kubeconfig|context|no-exec|api-limit|service-cidr|node-port-range"),
    (
        "Node and Services",
        (
            r"config|hostname-override|host|mode|nftables-.*|cluster-cidr|detect-local-mode|pod-.*|masquerade-all|iptables-.*"
            r"|nodeport-addresses|bind-address|ipvs-.*|external-ip-semantics|ignore-external-ips|claims|max-service-.*"
            r"|stale-udp|nfacct|variant|lock-wait|no-services"
        ),
    ),
    (
        "Ingresses",
        (
            r"ingress.*|nginx.*|names-port|haproxy.*|https?-port|controller-class|watch-.*|annotations-prefix|configmap"
            r"|default-.*|disable-.*|max-namespace-hosts|publish-.*|update-status.*|report-node-internal-ip-address"
            r"|keep-serving"
        ),
    ),
)
"""The headings, with the options below each; all other options come first."""


def _group(name: str) -> str:
    """Return the heading of an option; empty for the options of the command itself, and for what is no option."""
    option = re.search(r"--(?:\[no-\])?([a-z0-9-]+)", name)
    return next((title for title, names in _GROUPS if option and re.fullmatch(names, option[1])), "")


def _bound(text: str) -> str:
    return text.replace("-", _HYPHEN)
