"""The verb that gets a version ready for others: `papers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.options import AddressArgument, JsonOption, StoreOption
from flows.screen import Screen


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    verb(papers)


def papers(address: AddressArgument, store: StoreOption = ".gristmill", as_json: JsonOption = False) -> None:
    """Write the papers of a version beside its manifest.

    Attribution, data set card, Croissant, statement of content: each version has them from its build on; this writes
    them again where they were edited or lost, or where the version is older than they are. With them the folder is a
    data set of the Hugging Face Hub as it stands.

    \b
      gristmill papers quickstart
      python -c 'import datasets; print(datasets.load_dataset("FOLDER"))'
      hf upload --repo-type dataset NAME FOLDER
    """
    from pipeline import addresses
    from pipeline import papers as paperwork
    from pipeline.store import Store

    screen = Screen(as_json)
    version = addresses.sealed(Store(Path(store).expanduser()), address)
    facts = paperwork.again(version)
    screen.say(f"papers of {facts.address} in {version.folder}")
    for name in paperwork.PAPERS:
        screen.say(f"  {name}")
    unknown = facts.unknown
    screen.say(
        f"{len(facts.by_licence):,} licences, {len(facts.domains):,} domains; of {unknown.documents:,} documents "
        f"({unknown.tokens:,} tokens) nobody states a licence"
    )
    screen.finish(
        {
            "address": facts.address,
            "folder": str(version.folder.absolute()),
            "papers": list(paperwork.PAPERS),
            "licences": {name: amount.table() for name, amount in facts.by_licence.items()},
            "unknown_licence": unknown.table(),
        }
    )
