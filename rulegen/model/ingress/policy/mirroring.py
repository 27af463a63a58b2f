"""The mirror of an Ingress. If it is unusable, requests are served without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.model.ingress.ir import Mirror
from rulegen.model.ingress.policy.authentication import target_of_url
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations import backend

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.annotations.reading import Annotations


def mirror_of(annotations: Annotations, targets: Targets) -> Mirror | None:
    """Return the mirror of an Ingress; None for none. An unusable one is reported."""
    values = annotations.values
    url = values[backend.MIRROR_TARGET]
    if url is None:
        return None
    try:
        target = target_of_url(url, targets, "a mirror")
    except ValueError as error:
        annotations.report(Verdict.IGNORED, backend.MIRROR_TARGET, str(error))
        return None
    return Mirror(
        url=url,
        target=target,
        host=values[backend.MIRROR_HOST] or url.name,
        passes_body=values[backend.MIRROR_REQUEST_BODY] == "on",
    )
