"""The output of the demo: a shortened plan, and bars for the answers of each Pod."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.demo.hosts import CallTally, Page

WIDTH = 98
_BAR = 24
_BOLD, _DIM, _RESET = "\033[1m", "\033[2m", "\033[0m"
_COLOURS = {"+": "\033[32m", "-": "\033[31m", "~": "\033[33m"}
_POD_COLOURS = ("\033[36m", "\033[35m", "\033[34m", "\033[33m")

_ITEM = re.compile(r"  [-+~] \w+ ")
_SIGNED = re.compile(r" *([-+~]) ")
_FOLDED = re.compile(r"  [-+~] (?:chain nat KUBE-(?:SEP|EXT)-|host default server|file |secret )")
"""What is counted, not shown: chains of one endpoint, alike but for the address, and what all hosts share."""
_LISTEN = re.compile(r" *[-+]  (listen [^;]*;)$")
_TOTALS = ("Services: ", "Hosts: ", "Drift: ")
"""Lines before the number of changes, which says enough about one Service."""
_COUNTED = re.compile(r" *[-+] \((\d+) lines\)")


class Paint:
    """Colours, if they are enabled."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def bold(self, text: str) -> str:
        """Return a heading."""
        return self._in(_BOLD, text)

    def dim(self, text: str) -> str:
        """Return a less important text."""
        return self._in(_DIM, text)

    def change(self, line: str) -> str:
        """Return a line of a plan in the colour of its sign."""
        signed = _SIGNED.match(line)
        return self._in(_COLOURS[signed[1]], line) if signed else line

    def pod(self, number: int, text: str) -> str:
        """Return a text in the colour of a Pod."""
        return self._in(_POD_COLOURS[number % len(_POD_COLOURS)], text)

    def _in(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self._colour and text else text


def condense(output: str, *, brief: bool = False) -> Iterator[str]:
    """Yield the lines of a plan that fit on a screen: those about the Service, and the totals.

    What all Services share is counted in one line; rules that stay are left out, and so are reasons where there is no
    room for them.

    Args:
        output: What `rulegen plan` or `rulegen apply` printed.
        brief: Only what it came to.
    """
    for block in output.strip("\n").split("\n\n"):
        heading, *lines = block.split("\n")
        while heading.startswith(_TOTALS) and lines:
            heading, *lines = lines
        if heading.startswith(("Plan: ", "No changes", "Nothing to remove")):
            yield from () if lines and brief else (heading,)
            yield from ["; ".join(line.rstrip(".") for line in lines) + "."] if lines else ()
        elif heading == "Node-wide rules and parameters" and not brief:
            count = sum(_ITEM.match(line) is not None for line in lines)
            yield f"{heading}: {count} changes, shared by all Services"
        elif heading.startswith(("Service ", "Left over", "Ingress: ")) and not brief:
            yield heading.partition(" (/")[0]
            yield from (_fit(line) for line in _folded(lines))
        elif heading.startswith("Ingresses that are not served"):
            yield from (heading, *lines)


def bars(columns: Mapping[str, CallTally], pods: Sequence[str], paint: Paint) -> Iterator[str]:
    """Yield a line for each Pod with the number of its answers by path; the largest number of a path has a full bar."""
    width = max(map(len, pods)) + 2
    yield "  " + " " * width + "".join(paint.dim(f"{name:<{_BAR + 12}}") for name in columns).rstrip()
    for number, pod in enumerate(pods):
        cells = []
        for tally in columns.values():
            count = tally.answered.get(pod, 0)
            most = max(tally.answered.values(), default=1)
            bar = "█" * max(round(_BAR * count / most), 1 if count else 0)
            cells.append(paint.pod(number, f"{bar:<{_BAR}}") + f" {count:>5}      ")
        yield f"  {pod:<{width}}{''.join(cells)}".rstrip()


def answers(url: str, page: Page, paint: Paint) -> Iterator[str]:
    """Yield the response to a single request for a page."""
    got = f"sent to {page.location}" if page.location else page.text
    trusted = paint.dim("   with the certificate of the Secret") if url.startswith("https:") and page.status else ""
    yield f"  client requests {url:<26}{page.status or '':<5}{got}{trusted}"


def _folded(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Service's part, chains of one endpoint as one line each."""
    if not lines:
        return
    starts = [number for number, line in enumerate(lines) if _ITEM.match(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        heading, *rules = lines[start:end]
        if _FOLDED.match(heading) and rules:
            yield f"{heading}{_counted(heading, rules)}"
        else:
            yield heading
            # a rule that stands alone has no sign of its own
            yield from _joined(rule for rule in rules if len(rules) == 1 or _SIGNED.match(rule))


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines; those about the addresses of a server are joined."""
    held = ""
    for line in lines:
        listen = _LISTEN.match(line)
        if held and listen:
            held = f"{held} {listen[1]}"
            continue
        if held:
            yield held
        held = line if listen else ""
        if not listen:
            yield line


def _counted(heading: str, lines: Sequence[str]) -> str:
    """Return how much is not shown; of a secret not even that."""
    if " secret " in heading:
        return ""
    counted = _COUNTED.fullmatch(lines[0])
    return f", {counted[1] if counted else len(lines)} {'rules' if ' chain ' in heading else 'lines'}"


def _fit(line: str) -> str:
    """Return a line without its reason where both do not fit, and cut off where it does not fit even so."""
    line = line.replace(" [IPv4]", "")
    if len(line) > WIDTH:
        line = line.partition("  # ")[0]
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
