"""The verb `compare`: runs side by side on one page, with what sets them apart and whether that is more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from training import TrainingError, terminal


def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of complete runs, two or more.")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("comparison.html"),
    diffs: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="What `gristmill diff` says of their versions, as a list.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="End stdout with one JSON object: all that is on the page.")
    ] = (False),
) -> None:
    """Hold runs against the first: scores with paired bootstrap intervals, curves over tokens, cost.

    Runs that differ in their seed alone are one side, and their seeds are resampled beside the items. What is compared
    is what all of them answered under the same conditions: the documents of their own evaluation, and the sets of
    suites that `eval` has put to each.

    \b
      python -P -m training compare runs/small runs/large --out page.html
    """
    from training.suites import contrast, page

    try:
        known = json.loads(diffs.read_text("utf-8")) if diffs else []
    except (OSError, ValueError) as error:
        raise TrainingError(f"{diffs}: cannot be read ({error})") from error
    found: dict[str, Any] = contrast.contrast(folders, known)
    page.write_comparison(out, found)
    result = {**found, "page": str(out)}
    print(json.dumps(result) if as_json else terminal.visible("\n".join(terminal.compared(result))), flush=True)
