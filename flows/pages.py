"""An answer as one standalone page: no script, nothing fetched, and nothing in it that a document could have forged."""

from __future__ import annotations

import importlib.resources

from jinja2 import Environment, StrictUndefined

from flows import answers, charts
from flows.screen import clean, size
from flows.show import number
from pipeline.whatif import Answer

MOVES = 200


def answer(found: Answer) -> str:
    """The page of one question."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(clean=clean, size=size, number=number, tokens=answers.tokens)
    folder = importlib.resources.files("flows")
    template = page.from_string((folder / "whatif.html").read_text("utf-8"))
    return template.render(
        answer=found,
        moved=answers.moved(found),
        moves=answers.first(found, MOVES),
        limit=MOVES,
        style=(folder / "page.css").read_text("utf-8"),
        picture=charts.svg,
        about=answers.about,
        ends=answers.ends,
        end=answers.end,
    )
