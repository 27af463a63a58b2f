"""The driver of the language `listeners`: the proxy of userspace mode, over its sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.errors import HostError
from rulegen.host.userspace import proxy
from rulegen.host.userspace.supervision import ProxyRefusedError
from rulegen.languages.listeners.language import NAME, ChangeProxy, KeepProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rulegen.compiler.services.attribution import Belongings
    from rulegen.host.commands.runner import Runner
    from rulegen.host.dataplane.driver import Culprit, Preparation, ReadContext, WriteContext
    from rulegen.languages.language import StateKey, Task


class ProxyDriver:
    """Listeners, pools, servers and frontends of the proxy."""

    name = NAME
    tells_of_writes = False

    def read(self, context: ReadContext) -> Any:
        """Return what the proxy serves; if the mode has none, nothing if it cannot be read."""
        try:
            return proxy.observe()
        except HostError:
            if NAME in context.needed:
                raise
            return None

    def states(self, raw: Any, context: ReadContext) -> Mapping[StateKey, Any]:  # noqa: ARG002 - nothing to parse
        """Return what the proxy serves."""
        return {} if raw is None else {(NAME, None): raw}

    def writes(self) -> Mapping[type, Callable[[Any, WriteContext], None]]:
        """Return the functions that change the proxy and write its files."""
        return {ChangeProxy: lambda work, _: proxy.write(work), KeepProxy: lambda _, __: proxy.keep()}

    def preparation(self, tasks: Sequence[Task], run: Runner) -> Preparation | None:  # noqa: ARG002 - it is started by its first write
        """Return nothing."""
        return None

    def is_refusal(self, cause: BaseException | None) -> bool:
        """Whether HAProxy rejects the configuration."""
        return isinstance(cause, ProxyRefusedError)

    def culprits(self, cause: BaseException | None, belongings: Belongings) -> Mapping[str, Culprit]:  # noqa: ARG002 - HAProxy names lines, and they are no objects
        """Return nothing: the message names no object."""
        return {}
