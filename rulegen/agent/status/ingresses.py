"""The addresses in the status of Ingresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.status.addresses import documents, entries_of, union
from rulegen.agent.status.changes import StatusChange
from rulegen.apiserver.objects import INGRESSES, MERGE_PATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.agent.status.addresses import Entries
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Ingress


@dataclass(slots=True)
class IngressPublication:
    """The status of Ingresses.

    Attributes:
        ingresses: Returns those of the cluster, as they are now.
        served: Returns the names of the selected Ingresses, each with whether it is served; None before that is known.
    """

    ingresses: Callable[[], Mapping[ObjectName, Ingress]]
    served: Callable[[], Mapping[ObjectName, bool] | None]
    _written: dict[ObjectName, Entries] = field(default_factory=dict)

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield the statuses that differ.

        For an Ingress that is no longer selected, remove what rulegen has published.
        """
        served = self.served()
        if served is None:
            return
        wanted = union(live)
        for name, ingress in self.ingresses().items():
            now = entries_of(ingress.status.load_balancer.ingress)
            if name in served:
                target = wanted if served[name] else ()
            elif self._written.get(name) == now and now:
                target = ()
            else:
                self._written.pop(name, None)
                continue
            if now != target:
                patch = {"loadBalancer": {"ingress": documents(target) or None}}
                document = {"metadata": {"uid": ingress.metadata.uid}, "status": patch}
                yield StatusChange(INGRESSES, name, MERGE_PATCH, document, target)

    def wrote(self, change: StatusChange) -> None:
        """Remember what was published, to remove it when the Ingress is no longer selected."""
        if change.entries:
            self._written[change.name] = change.entries
        else:
            self._written.pop(change.name, None)
