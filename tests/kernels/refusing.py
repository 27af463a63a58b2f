"""A stand-in for iptables' tools that refuses rules as the real ones do, on a kernel in memory that really executes.

What the real ones print was recorded of iptables 1.8.9 in a network namespace, with rules that the kernel refuses:

- nft, at COMMIT, names every line: exit code 4,
  `line 3: RULE_APPEND failed (No such file or directory): rule in chain T`;
- legacy names the COMMIT and gives no reason: exit code 1, `iptables-restore: line 6 failed`;
- a rule that is not there to be deleted: exit code 1, nft `line 3 failed: Bad rule (does a matching rule exist in that
  chain?).`, legacy `line 3 failed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rulegen.host.commands.runner import Command, Completed
from rulegen.host.netfilter.variant import Variant
from rulegen.net import Family
from tests.kernels.kernel import Kernel, RefusedError


def nothing(_: str) -> bool:
    return False


@dataclass
class Tools:
    """Runs iptables-save and iptables-restore.

    Attributes:
        refuses: Whether the kernel refuses a line of a script that puts a rule into a chain.
        ends: How the next calls end, whatever is in the script; they write nothing.
        scripts: What was fed to restore, in order.
        refusals: How many of these were refused.
    """

    variant: Variant
    refuses: Callable[[str], bool] = nothing
    kernels: dict[Family, Kernel] = field(default_factory=lambda: {family: Kernel() for family in Family})
    ends: list[Completed] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    refusals: int = 0

    def __call__(self, command: Command) -> Completed:
        tool = command.argv[0]
        if not tool.startswith(("iptables", "ip6tables")):
            return Completed(1, "", f"{tool}: not here")
        if "--version" in command.argv:
            return Completed(0, f"iptables v1.8.9 ({'nf_tables' if self.variant is Variant.NFT else 'legacy'})\n")
        family = Family.IPV6 if tool.startswith("ip6") else Family.IPV4
        if str(self.variant.other) in tool:
            return Completed(0, Kernel().save())
        if tool.endswith("save"):
            return Completed(0, self.kernels[family].save())
        self.scripts.append(command.stdin)
        done = self.ends.pop(0) if self.ends else self._restore(self.kernels[family], command.stdin)
        self.refusals += done.code != 0
        return done

    def _restore(self, kernel: Kernel, script: str) -> Completed:
        begin: list[tuple[int, str]] = []
        for number, line in enumerate(script.splitlines(), 1):
            if line != "COMMIT":
                begin = [*([] if line.startswith("*") else begin), (number, line)]
                continue
            bad = [(at, text) for at, text in begin if text.startswith(("-A", "-I")) and self.refuses(text)]
            if bad:
                return self._refusal(bad, number)
            try:
                kernel.commit([text for _, text in begin])
            except RefusedError as error:
                at = next((at for at, text in begin if text in str(error)), number)
                return Completed(1, "", f"iptables-{self.variant}-restore: line {at} failed\n")
        return Completed(0)

    def _refusal(self, bad: list[tuple[int, str]], commit: int) -> Completed:
        if self.variant is Variant.LEGACY:
            return Completed(1, "", f"iptables-restore: line {commit} failed\n")
        lines = [
            f"line {at}: RULE_APPEND failed (No such file or directory): rule in chain {text.split(' ')[1]}"
            for at, text in bad
        ]
        return Completed(4, "", "iptables-nft-restore v1.8.9 (nf_tables): \n" + "\n".join(lines) + "\n")
