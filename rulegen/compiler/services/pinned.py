"""State of left-out Services on the node: their old objects stay, and no new ones are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.ownership.table import OwnershipContext
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.observed import Observed
    from rulegen.languages.language import FrontendKey, Holder, Objects
    from rulegen.net import Family


def held(
    compiled: Compiled, observed: Observed, owners: Collection[str], without: Compiled | None = None
) -> list[OwnedObjects]:
    """Return the state of some Services on the node, one fragment for each family; nothing if there is none.

    Args:
        compiled: The desired state, including these Services.
        observed: The state of the node before the write.
        owners: The Services, `namespace/name`.
        without: The desired state without these Services, in which other Services have their shared frontends. None if
            no other Service has them yet.
    """
    fragments: list[OwnedObjects] = []
    for family in observed.families:
        wanted = [fragment for fragment in compiled.fragments[family] if fragment.owner in owners]
        holders = _holders(compiled, observed, family, owners, without or compiled) if wanted else {}
        for fragment in wanted:
            objects = _held(fragment, holders, compiled)
            if objects:
                fragments.append(OwnedObjects(fragment.owner, family, objects))
    return fragments


def _held(fragment: OwnedObjects, holders: dict[str, Holder], compiled: Compiled) -> dict[str, Any]:
    """Return the observed objects of one Service, by language.

    Frontends come first, because they identify the others.
    """
    objects: dict[str, Any] = {}
    frontends: set[FrontendKey] = set()
    for name, holder in holders.items():
        content = holder.held(fragment.objects[name], frontends) if name in fragment.objects else None
        if content is not None:
            objects[name] = content
            frontends.update(compiled.tables.languages[name].frontends(content))
    return objects


def _holders(
    compiled: Compiled, observed: Observed, family: Family, owners: Collection[str], without: Compiled
) -> dict[str, Holder]:
    """Return functions that find the objects of a Service, by language.

    Nothing for languages that were not observed.
    """
    holders: dict[str, Holder] = {}
    ours: dict[str, Objects] = {}
    node, backend = compiled.model.nodes[family], compiled.backend
    languages = backend.all_languages
    desired = {name: compiled.unions[family][name].objects() for name in languages}
    for name, ownership_of in backend.ownership.items():
        state = observed.state(name, family)
        if state is None or name not in desired:
            continue
        context = OwnershipContext(
            family=family,
            is_first=False,
            node=node,
            state=state,
            ours=ours,
            desired=desired,
            node_addresses=(),
            excluded=node.ipvs.excluded,
        )
        language, ownership = compiled.tables.languages[name], ownership_of(context)
        there = language.ours(state, ownership, desired[name])
        if there is None:
            continue
        ours[name] = there
        others = language.union()
        for fragment in without.fragments[family]:
            if fragment.owner not in owners and name in fragment.objects:
                others.replace(fragment.owner, None, fragment.objects[name])
        holders[name] = language.holder(there, ownership, others.objects())
    return {name: holders[name] for name in reversed(languages) if name in holders}
