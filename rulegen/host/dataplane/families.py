"""The address families whose tools fail: each is set aside, so that it does not delay the other one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import MissingToolError, ToolTimeoutError
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.apply import Step
    from rulegen.host.netfilter.variant import Variant

_NO_CHANGE = "*nat\nCOMMIT\n"


@dataclass(slots=True)
class BrokenFamilies:
    """The families that are set aside.

    Attributes:
        is_enabled: Whether a family can be set aside; otherwise each failure is an error.
        on_change: Called with all errors as one text, empty if no family is set aside.
        errors: Why each family was set aside.
    """

    is_enabled: bool = False
    on_change: Callable[[str], None] = lambda _: None
    errors: dict[Family, HostError] = field(default_factory=dict)

    def healthy(self, families: Iterable[Family]) -> tuple[Family, ...]:
        """Return the families that are not set aside."""
        return tuple(family for family in families if family not in self.errors)

    def set_aside(self, family: Family | None, error: HostError, families: Iterable[Family]) -> bool:
        """Set a family aside if its tool is broken, and another family works; return whether it was.

        Args:
            family: The family of what has failed; None for none.
            error: The failure.
            families: The families of this host. If none of them works, all are tried again together.
        """
        cause = error.__cause__ if isinstance(error, ApplyError) else error
        if not self.is_enabled or family is None or not isinstance(cause, HostError) or not _is_broken(cause):
            return False
        if not set(families) - {*self.errors, family}:
            self.errors.clear()
            self._changed()
            return False
        self.errors[family] = cause
        self._changed()
        return True

    def include(self, family: Family) -> None:
        """Read and write a family again."""
        self.errors.pop(family, None)
        self._changed()

    def kept(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """Return the steps of healthy families; without rules for IPv4, no parameter is opened that they make safe."""
        return tuple(
            step for step in steps if step.family not in self.errors and not (step.opens and Family.IPV4 in self.errors)
        )

    def _changed(self) -> None:
        self.on_change("; ".join(str(error) for _, error in sorted(self.errors.items())))


def check_tools(run: Runner, variant: Variant, family: Family, wait_s: int) -> None:
    """Read the rules of a family, and write a script that changes nothing.

    Raises:
        HostError: One of the tools still fails.
    """
    iptables.observe(run, variant, family)
    iptables.restore(run, variant, family, _NO_CHANGE, wait_s=wait_s)


def _is_broken(cause: HostError) -> bool:
    """Whether a failure is that of a tool. The lock belongs to both families, and a rejected rule to a Service."""
    if isinstance(cause, RestoreError):
        return cause.is_momentary
    return isinstance(cause, ToolTimeoutError | MissingToolError) or type(cause) is HostError
