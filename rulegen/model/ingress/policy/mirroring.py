"""Where each request is sent too: a mirror, which answers nobody. Without it, requests are served all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.model.ingress.ir import Mirror
from rulegen.model.ingress.policy.authentication import asked_target
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations import backend

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.annotations.reading import Annotations


def mirror_of(annotations: Annotations, targets: Targets) -> Mirror | None:
    """Return where the requests of an Ingress are sent too; a server that cannot be asked is reported."""
    values = annotations.values
    url = values[backend.MIRROR_TARGET]
    if url is None:
        return None
    try:
        target = asked_target(url, targets, "a mirror")
    except ValueError as error:
        annotations.report(Verdict.IGNORED, backend.MIRROR_TARGET, str(error))
        return None
    return Mirror(
        url=url,
        target=target,
        host=values[backend.MIRROR_HOST] or url.name,
        passes_body=values[backend.MIRROR_REQUEST_BODY] == "on",
    )
