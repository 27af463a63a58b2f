"""The address families whose tools fail: each is set aside, so that it does not delay the other one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from rulegen.errors import ApplyError, HostError
from rulegen.host.commands.runner import MissingToolError, ToolTimeoutError
from rulegen.host.dataplane.nftables_driver import NftablesDriver
from rulegen.host.dataplane.observe import read_kernel
from rulegen.host.netfilter import iptables
from rulegen.host.netfilter.nft import NftError
from rulegen.host.netfilter.restore_error import RestoreError
from rulegen.host.nftables.kernel.transaction import TransactionError
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.host.dataplane.apply import Step
    from rulegen.host.dataplane.driver import Driver, ReadContext

OF_FAMILIES: Final = frozenset({IPTABLES, NFTABLES})
"""Languages with a state of its own for each family. A mode that uses others, too, writes both families together."""
_NO_CHANGE: Final = "*nat\nCOMMIT\n"
_NFTABLES: Final = NftablesDriver()


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

    def read(self, driver: Driver, context: ReadContext) -> dict[Family, Any]:
        """Return the unparsed state of each family that is not set aside; one whose tool fails is set aside.

        Args:
            driver: Of a language of `OF_FAMILIES`.
            context: What is read: all families of this host.

        Raises:
            HostError: No family can be read, or the failure is not that of a tool.
        """
        raw: dict[Family, Any] = {}
        for family in self.healthy(context.families):
            try:
                raw |= read_kernel({driver.name: driver}, replace(context, families=(family,)))[driver.name]
            except HostError as error:
                if not self.set_aside(family, error, context.families):
                    raise
        return raw

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


def check_tools(drivers: Mapping[str, Driver], context: ReadContext, wait_s: int) -> None:
    """Read a family; in a mode that writes rules of iptables, also write a script that changes nothing.

    Args:
        drivers: The drivers of this host.
        context: What is read: one family.
        wait_s: Maximum wait for the xtables lock, in seconds; 0 for no limit.

    Raises:
        HostError: One of the tools still fails.
    """
    read_kernel({name: drivers[name] for name in sorted({IPTABLES, *context.needed} & drivers.keys())}, context)
    if IPTABLES in context.needed:
        for family in context.families:
            iptables.restore(context.run, context.variant, family, _NO_CHANGE, wait_s=wait_s)


def _is_broken(cause: HostError) -> bool:
    """Whether a failure is that of a tool. The lock belongs to both families, and a rejected rule to a Service."""
    if isinstance(cause, RestoreError):
        return cause.is_momentary
    if isinstance(cause, TransactionError | NftError):
        return not _NFTABLES.is_refusal(cause)
    return isinstance(cause, ToolTimeoutError | MissingToolError) or type(cause) is HostError
