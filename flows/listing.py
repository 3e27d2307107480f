"""The verbs that only look: what lies in a store, what ships, and what a version says of itself when it is asked.

Each returns plain data for `--json` and has it laid out by `show`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows import document, runs
from flows import show as layout
from flows.screen import Screen, plain, size
from pipeline import addresses
from pipeline import manifest as manifests
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError


def everything(root: Path) -> dict[str, Any]:
    """Versions, the newest of a name first, runs, recipes, run files, suites and cards."""
    from flows import evaluating
    from pipeline import recipe as recipes

    return {
        "store": str(root.expanduser().absolute()),
        "versions": versions(Store(root)),
        "runs": [run.summary() for run in runs.of(root)],
        "recipes": recipes.available(),
        "run_files": runs.available(),
        "suites": evaluating.available(),
        "cards": cards(),
    }


def versions(store: Store) -> list[dict[str, Any]]:
    """Address, documents, tokens and bytes of each sealed version; a damaged one says so."""
    found = []
    for name in manifests.names(store):
        for number in reversed(manifests.versions(store, name)):
            folder = store.root / "versions" / name / number
            try:
                found.append(_summary(manifests.read(folder)))
            except (StoreError, KeyError, TypeError) as error:
                found.append({"address": f"{name}@{number}", "problem": str(error)})
    return found


def _summary(version: Version) -> dict[str, Any]:
    table = version.manifest
    return {
        "address": version.address,
        "documents": table["summaries"]["documents"]["kept"],
        "tokens": sum(split["tokens"] for split in table["splits"].values()),
        "bytes": sum(shard["bytes"] for split in table["splits"].values() for shard in split["shards"]),
        "manifest": str(version.folder.absolute() / "manifest.json"),
    }


def cards() -> list[dict[str, Any]]:
    """Name, title, licence and languages of each card that ships."""
    from pipeline.catalog import cards as shipped

    known = {"name", "kind", "title", "licence", "languages"}
    return [shipped.load(name).model_dump(include=known) for name in shipped.available()]


def show(screen: Screen, found: Mapping[str, Any]) -> None:
    screen.say(plain(f"store {found['store']}", "dim"))
    rows = [
        (v["address"], f"{v['documents']:,}", f"{v['tokens']:,}", size(v["bytes"]))
        if "problem" not in v
        else (v["address"], "damaged", "", "")
        for v in found["versions"]
    ]
    layout.listing(screen, "versions", ("address", "documents", "tokens", "size"), rows)
    for broken in (v for v in found["versions"] if "problem" in v):
        screen.say(plain(f"  {broken['problem']}", "red", limit=1000))
    table = [
        (
            r["name"],
            r["status"],
            f"{r['step'] or 0}/{r['steps'] or '?'}",
            layout.number(r["bits_per_byte"] or ""),
            r["version"],
        )
        for r in found["runs"]
    ]
    layout.listing(screen, "runs", ("name", "status", "steps", "bits per byte", "version"), table)
    layout.listing(screen, "recipes (gristmill build NAME)", ("name",), [(name,) for name in found["recipes"]])
    layout.listing(screen, "run files (gristmill train NAME)", ("name",), [(name,) for name in found["run_files"]])
    layout.listing(screen, "suites (gristmill eval MODEL --suite NAME)", ("name",), [(n,) for n in found["suites"]])
    near = [c for c in found["cards"] if c["kind"] != "hub"]
    known = [(c["name"], c["title"], c["licence"], ", ".join(c["languages"])) for c in near]
    layout.listing(screen, "cards of sources", ("name", "title", "licence", "languages"), known)
    screen.say(plain(f"  and {len(found['cards']) - len(near)} of the Hub: gristmill sources", "dim"))


def one(screen: Screen, root: Path, address: str) -> dict[str, Any]:
    """Show the version, or else the run, that an address means. Raises ConfigError where it is neither."""
    from flows import comparison

    found = {run.name: run for run in runs.of(root)}
    store = Store(root)
    if address in found and address not in manifests.names(store):
        layout.run(screen, found[address])
        return found[address].summary()
    try:
        version = addresses.sealed(store, address)
    except ConfigError as error:
        named = address.partition("@")[0] in manifests.names(store)
        raise error if named else ConfigError(f"{error}; runs: {', '.join(found) or 'none'}") from error
    readers = [run for run in found.values() if run.address == version.address]
    layout.version(screen, version, readers)
    comparison.beside(screen, readers)
    return {**version.manifest, "folder": str(version.folder.absolute()), "runs": [run.summary() for run in readers]}


def why(screen: Screen, root: Path, doc_id: str, address: str | None) -> dict[str, Any]:
    """What happened to a document. Raises ConfigError where the version never met it."""
    from pipeline.catalog import queries

    store = Store(root)
    version, _ = addresses.find(store, address or newest(store))
    found = queries.why(store, version, doc_id)
    document.why(screen, version.address, found)
    return {"version": version.address, **asdict(found)}


def newest(store: Store) -> str:
    """The folder of the version that was sealed last. Raises ConfigError where there is none."""
    found = [path for path in (store.root / "versions").glob("*/*/manifest.json") if path.parent.name[0] != "."]
    if not found:
        raise ConfigError(f"no version in {store.root}; build one first, for example: gristmill build quickstart")
    return str(max(found, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent)


def verify(screen: Screen, root: Path, address: str, extends: str | None = None) -> dict[str, Any]:
    """Hash the files of a version again; `problems` is empty where all is as its manifest says.

    With `extends`, of that version too, and `problems` has whatever of it is not there any more as it was.
    """
    store = Store(root)
    version = addresses.met(store, address)
    problems = list(manifests.verify(version))
    files = 2 + sum(len(split["shards"]) for split in version.manifest["splits"].values())
    checks = [f"{files} files have the content that the manifest states"]
    found = {"version": version.address, "files": files}
    if extends is not None:
        from pipeline.extending import proof

        old = addresses.met(store, extends)
        problems += [f"{old.address}: {problem}" for problem in manifests.verify(old)]
        problems += [] if problems else proof.differences(version, old)
        shards = [shard for split in old.manifest["splits"].values() for shard in split["shards"]]
        kept = old.manifest["documents"]["rows"]
        checks.append(f"all {len(shards):,} shards and {kept:,} documents of {old.address} are there as they were")
        found["extends"] = old.address
    _verdict(screen, version, problems, checks)
    return {**found, "problems": problems}


def audit(screen: Screen, root: Path, address: str) -> dict[str, Any]:
    """Account for every document of a version; `problems` is empty where the books balance."""
    from pipeline.audit import audit as account

    version = addresses.met(Store(root), address)
    report = account(version, Store(root))
    _verdict(screen, version, report.problems, report.checks)
    return {"version": version.address, "counts": report.counts, "checks": report.checks, "problems": report.problems}


def _verdict(screen: Screen, version: Version, problems: list[str], checks: list[str]) -> None:
    for check in checks if not problems else ():
        screen.say(f"  {check}")
    for problem in problems:
        screen.say(plain(f"  {problem}", "red", limit=2000))
    screen.say(plain(f"{version.address}: {f'{len(problems)} problems' if problems else 'sound'}", "bold"))
