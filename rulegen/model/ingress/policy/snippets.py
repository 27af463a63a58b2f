"""Reports the snippets of an Ingress, and closes what they may protect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations import access
from rulegen.model.ingress.values.annotations.unsupported import SNIPPETS
from rulegen.model.ingress.values.readers import boolean
from rulegen.model.ingress.values.snippets.judgement import SnippetPlace, judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.settings import Settings

SERVER_SNIPPET: Final = "server-snippet"
_ENABLE_MODSECURITY: Final = "enable-modsecurity"


def judge_snippets(annotations: Annotations, texts: Mapping[str, str], settings: Settings) -> bool:
    """Report the snippets of an Ingress and close it if one may protect it.

    Args:
        annotations: Its annotations, as they were read; gets the reports.
        texts: The texts of all its annotations.
        settings: Settings, which may enable ModSecurity for all Ingresses.

    Returns:
        Whether a snippet may protect all paths of its hosts.
    """
    closes_hosts = False
    for name, text in annotations.snippets.items():
        place = SNIPPETS[name]
        judgement = judged(text, place)
        if judgement.protects and _has_effect(place, annotations, texts, settings):
            annotations.close_by_name(name, judgement.message)
            closes_hosts |= place is SnippetPlace.SERVER
        elif judgement.message:
            annotations.report_name(Verdict.UNSUPPORTED, name, judgement.message)
        else:
            annotations.report_name(Verdict.IGNORED, name, "it is empty")
    return closes_hosts


def _has_effect(place: SnippetPlace, annotations: Annotations, texts: Mapping[str, str], settings: Settings) -> bool:
    """Whether ingress-nginx would use a snippet, depending on the other annotations."""
    if place is SnippetPlace.AUTH:
        return access.AUTH_URL in annotations.values or access.AUTH_URL in annotations.failed
    if place is SnippetPlace.MODSECURITY:
        text = texts.get(f"{annotations.prefix}/{_ENABLE_MODSECURITY}")
        try:
            return boolean(text.strip()) if text is not None else settings.enable_modsecurity
        except ValueError:
            return settings.enable_modsecurity
    return True
