"""A Collection on the Hub: the base, the twins, their data and their comparison on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inspo_hub.hub.client import DEFAULT_PATIENCE, Patience, api, call
from inspo_hub.hub.files import check_repo_path

TITLE_LENGTH, DESCRIPTION_LENGTH = 59, 149
"""What the Hub takes at most."""


@dataclass(frozen=True, slots=True)
class CollectionItem:
    """One entry: a repository, or a paper by its arXiv number; `note` is shown beside it."""

    id: str
    kind: Literal["model", "dataset", "space", "paper"]
    note: str | None = None


def gather(
    title: str,
    items: Sequence[CollectionItem],
    *,
    namespace: str,
    description: str | None = None,
    private: bool = True,
    patience: Patience = DEFAULT_PATIENCE,
) -> str:
    """The address of the namespace's Collection with this title, which holds these items; may be repeated.

    Raises HubFailure.
    """
    for item in items:
        check_repo_path(item.id, where=f"collection {title}")
    made = call(
        lambda: api().create_collection(
            title[:TITLE_LENGTH],
            namespace=namespace,
            description=description[:DESCRIPTION_LENGTH] if description else None,
            private=private,
            exists_ok=True,
        ),
        patience=patience,
    )
    present = {(item.item_id, item.item_type) for item in made.items}
    for item in items:
        if (item.id, item.kind) not in present:
            _add(made.slug, item, patience)
    return made.url


def _add(slug: str, item: CollectionItem, patience: Patience) -> None:
    call(lambda: api().add_collection_item(slug, item.id, item.kind, note=item.note, exists_ok=True), patience=patience)
