"""What may be said of a forgetting: who went, what went, what still holds them, who has read them.

It is written when all of it is so, as JSON and as text, with the sha256 of its canonical JSON. The day on which that
was lies beside the digest, not under it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.digests import canonical
from pipeline.stage import ConfigError
from pipeline.store import write_text

FORMAT = "gristmill.forgotten/1"
JSON, TEXT = "forgotten.json", "forgotten.txt"


def write(folder: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write forgotten.txt, then forgotten.json; returns what the latter holds."""
    body = {"format": FORMAT, **said}
    digest = hashlib.sha256(canonical(body).encode()).hexdigest()
    whole = {"statement": body, "sha256": digest, "written": datetime.now(UTC).isoformat(timespec="seconds")}
    write_text(folder / TEXT, text(whole))
    write_text(folder / JSON, json.dumps(whole, ensure_ascii=False, sort_keys=True, indent=1) + "\n")
    return whole


def read(folder: Path) -> dict[str, Any]:
    """A statement that stands. Raises ConfigError where it is not what its digest says."""
    whole: dict[str, Any] = json.loads((folder / JSON).read_text("utf-8"))
    if hashlib.sha256(canonical(whole["statement"]).encode()).hexdigest() != whole["sha256"]:
        raise ConfigError(f"{folder / JSON} was edited: it does not have the digest that it states")
    return whole


def text(whole: Mapping[str, Any]) -> str:
    """The statement for people."""
    said = whole["statement"]
    lines = [
        f"{said['documents']:,} documents of {said['parent']} were forgotten in {said['version']}.",
        f"Asked for: {_request(said['request'])}",
        f"{said['asked_for']:,} were named, {said['documents'] - said['asked_for']:,} went with them: "
        + ("what was made of them." if said["request"]["only"] else "their duplicates and what was made of them."),
        f"Of all, {said['was_kept']:,} were in the parent's shards; {said['shards_rewritten']:,} of "
        f"{said['shards']:,} shards were written anew, the others are the same files.",
        "Their ids, sizes, and the reason of the forgetting stay in the ledger and in forgotten.parquet.",
        "",
        *_gone(said),
        "",
        *_sources(said["sources"]),
        "",
        f"The tokenizer is the parent's ({said['tokenizer']}): its merges were counted over a sample of all documents, "
        "and hold words and parts of words, no text.",
        "",
        *_runs(said["runs"], gone=bool(said["purged"]["versions"])),
        "",
        f"sha256 of the canonical JSON: {whole['sha256']}",
        f"written {whole['written']}",
    ]
    return "\n".join(lines) + "\n"


def _request(request: Mapping[str, Any]) -> str:
    parts = [f"{name} {', '.join(map(str, v))}" for name, v in request.items() if isinstance(v, list)]
    if "match_file" in request:
        parts.append(
            f"{request['match_file']['lines']:,} strings of a file with sha256 {request['match_file']['sha256']}"
        )
    return "; ".join(parts) + (f" ({request['reason']})" if request["reason"] else "")


def _gone(said: Mapping[str, Any]) -> list[str]:
    purged = said["purged"]
    lines = [f"Removed from the store: {len(purged['outputs']):,} outputs that held them"]
    lines[0] += f", and {', '.join(purged['versions'])} with its shards." if purged["versions"] else "."
    if purged["leftovers"]:
        lines.append(f"Removed too: {len(purged['leftovers']):,} folders of builds that were stopped or kept.")
    if purged["still_held"]:
        lines.append("STILL HELD by these versions of the store, which are not changed:")
        lines += [f"  {address}" for address in purged["still_held"]]
    else:
        lines.append("No version, output or index of the store holds their texts or their tokens.")
    if said["request"]["only"]:
        lines.append("Documents that duplicate them were not asked for: what those share with them stays in those.")
    return lines


def _sources(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["The files that they were read from are not the store's and were not changed:"]
    for source in sources:
        lines += [f"  {source['name']}: {place}" for place in source["files"]]
    return lines


def behind(run: Mapping[str, Any], read: str) -> str:
    """What is known of an earlier run whose weights a run began with; `read` is what it had read of those asked for."""
    if run["run"] is None:
        return "the first weights are of no run of the store, and what they had learnt from is not known"
    whose = f"the weights of {run['run']} at step {run['step']:,}"
    if run["documents"] is None:
        return f"began with {whose}, which is no longer in the store"
    return f"began with {whose}, which had read {read if run['documents'] else 'none'} by then"


def _runs(runs: Sequence[Mapping[str, Any]], gone: bool) -> list[str]:
    if not runs:
        return ["No run of the store has read them."]
    lines = ["Runs of the store, and what they have read of them:"]
    for run in runs:
        if run["problem"]:
            lines.append(f"  {run['run']}: cannot be asked: {run['problem']}")
        elif not run["documents"]:
            lines.append(f"  {run['run']}: nothing ({run['steps_done']:,} steps of {run['version']})")
        else:
            steps = ", ".join(f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in run["steps"])
            lines.append(f"  {run['run']}: {run['documents']:,} documents, in steps {steps}")
            lines.append(f"    checkpoints that have seen them: {', '.join(run['checkpoints']) or 'none is left'}")
        for each in run.get("before", []):
            lines.append(f"    {behind(each, format(each['documents'] or 0, ',') + ' documents')}")
        if run.get("quoted_in"):
            lines.append(f"    their beginnings may be quoted in {', '.join(run['quoted_in'])}")
    if gone:
        lines.append("Those that read the removed version can no longer be resumed or traced; what was exported stays.")
    return lines
