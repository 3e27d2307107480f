"""What the tables of a recipe ask of one another: the order of stages, the splits, and rows that hold more than a text.

Each table was checked by itself before. The law: what would fail in a build fails here, in one sentence that names the
place and what to write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.stage import ConfigError, suggest

if TYPE_CHECKING:
    from pipeline.catalog.cards import Card
    from pipeline.recipe import Recipe

CHAT, ITEMS = "chat", "items"  # kinds of sources: of conversations, and of evaluation items
# What rows are that are whole as they came: what else of a row there is, and why no other text is made of it.
WHOLE = {
    CHAT: ("the answers", "holds conversations, whose turns belong together"),
    ITEMS: ("the items", "holds evaluation items, and one that was changed is another"),
}
CUTTING = (CHAT,)  # their texts may not be cut either; an item keeps its row beside the text, to the byte


def rows_of(card: Card) -> str:
    """What the rows of a source are: what its card says that they tell (kind `hub`), or else what its kind is."""
    return next((name for name in WHOLE if card.params.get(name) is not None), card.kind)


def check(recipe: Recipe, where: str) -> None:
    """Raises ConfigError where two tables do not go together."""
    _check_order(recipe, where)
    _check_splits(recipe, where)
    _check_targets(recipe, where)
    _check_rows(recipe, where)


def _check_order(recipe: Recipe, where: str) -> None:
    seen: set[str] = set()
    last = max((n for n, step in enumerate(recipe.steps, 1) if step.stage.kind == "relate"), default=len(recipe.steps))
    for number, step in enumerate(recipe.steps, 1):
        place = f"{where} stage {number} ({step.stage.name})"
        if step.stage.name in seen and step.stage.signals:
            raise ConfigError(f"{place}: used twice; its signals would collide")
        if step.stage.kind == "extend" and number <= last:
            raise ConfigError(
                f"{place}: a stage that adds documents comes after exact and near, behind the last of them: children "
                "follow the split of their parent, which deduplication decides"
            )
        seen.add(step.stage.name)
    for segment in recipe.segments:
        known = {f"{s.stage.name}.{column}": kind for s in segment.steps for column, kind in s.stage.signals.items()}
        for step in segment.relates:
            for name in step.stage.reads:
                if name == "text_bytes" or _number(known.get(name)):
                    continue
                raise ConfigError(
                    f"{where} stage ({step.stage.name}): {name!r} is no number that a stage measures in its segment, "
                    f"between the barrier before and this one{suggest(name, [k for k in known if _number(known[k])])}"
                )


def _number(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _check_splits(recipe: Recipe, where: str) -> None:
    split = recipe.pack.split
    if "train" in split:
        raise ConfigError(f"{where} [pack] split: train is what the others leave; do not list it")
    if any(not re.fullmatch(r"[a-z0-9_]+", name) for name in split):
        raise ConfigError(f"{where} [pack] split: names are lower-case letters, digits and underscores")
    shares = {name: share for name, share in split.items() if not isinstance(share, list)}
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ConfigError(
            f"{where} [pack] split: shares lie between 0 and 1 and leave something for train, got {shares}"
        )
    known = {card.name for card in recipe.sources}
    named = [source for given in split.values() if isinstance(given, list) for source in given]
    for source in named:
        if source not in known:
            raise ConfigError(f"{where} [pack] split: {source!r} is no source of the recipe{suggest(source, known)}")
    if twice := [source for source in named if named.count(source) > 1]:
        raise ConfigError(f"{where} [pack] split: {twice[0]!r} is named twice; a source belongs to one split")
    if empty := [name for name, given in split.items() if given == []]:
        raise ConfigError(f"{where} [pack] split: {empty[0]!r} names no source; name one, or give a share")
    if known and known == set(named):
        raise ConfigError(f"{where} [pack] split: every source is given to another split; none is left for train")


def _check_targets(recipe: Recipe, where: str) -> None:
    """A text to be written has a place beside the text that it is written from, and nowhere else."""
    if recipe.pack.layout == "examples":
        return
    for card in recipe.sources:
        if "target" in (card.params.get("columns") or {}):
            raise ConfigError(
                f"{where} [pack]: layout {recipe.pack.layout!r} has no place for the target that card {card.name!r} "
                f'({card.file}) maps; write layout = "examples", or take target out of the card\'s columns'
            )


def _check_rows(recipe: Recipe, where: str) -> None:
    """What belongs to a document's row stands beside it, and nothing but the row makes texts."""
    card = next((card for card in recipe.sources if rows_of(card) in WHOLE), None)
    if card is None:
        return
    rest, reason = WHOLE[rows_of(card)]
    if recipe.pack.layout != "examples":
        raise ConfigError(
            f"{where} [pack]: layout {recipe.pack.layout!r} has no place for {rest} of card {card.name!r} "
            f'({card.file}); write layout = "examples"'
        )
    for number, step in enumerate(recipe.steps, 1):
        if step.stage.kind == "extend" or (rows_of(card) in CUTTING and step.stage.cuts):
            raise ConfigError(f"{recipe.place(number)}: card {card.name!r} {reason}; leave this stage out")
