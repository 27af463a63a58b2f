"""The EndpointSlices of `export --endpointslices`, as YAML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import InputError
from rulegen.kube.snapshot.controller_slices import controller_slices
from rulegen.kube.snapshot.pods import TooManyPodsError

if TYPE_CHECKING:
    from rulegen.kube.snapshot.world import ClusterSnapshot

HEAD: Final = "# rulegen: the EndpointSlices that the controller would write for these Services, Pods and Nodes.\n"

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9./-]*\Z")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def slices_text(world: ClusterSnapshot) -> str:
    """Return the EndpointSlices of all Services that have a selector, one YAML document each.

    Raises:
        InputError: The selectors match too many Pods.
    """
    import yaml  # noqa: PLC0415 - no other part of the command needs it

    class Dumper(yaml.SafeDumper):
        """Quotes each text that YAML 1.1 or 1.2 could read as something else."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is the base class's
            return True

    def represent(dumper: Dumper, text: str) -> yaml.ScalarNode:
        is_plain = _PLAIN.match(text) and text.lower() not in _WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    Dumper.add_representer(str, represent)
    services = [known.service for known in world.services.values()]
    try:
        documents = list(controller_slices(services, world.pods, world.nodes))
    except TooManyPodsError as error:
        raise InputError("spec.selector", str(error)) from None
    return HEAD + yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=False)
