"""What a command made, in a few lines, and what to try next, ready to be pasted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.screen import Screen, plain, size
from flows.show import books, canaries


def built(screen: Screen, made: Mapping[str, Any]) -> None:
    """What a build made: its address, the books in a line, tokens, and where the manifest lies."""
    screen.say(plain(made["address"], "bold"))
    screen.say("  " + books(made["documents"]))
    tokens = ", ".join(f"{split['tokens']:,} tokens in {name}" for name, split in made["splits"].items())
    cut = sum(split["truncated"] for split in made["splits"].values())
    lost = f"; {cut:,} more were cut out of texts longer than a row, before their end-of-text" if cut else ""
    screen.say(f"  {tokens}{lost}")
    if unknown := made["unknown_licence"]:
        screen.say(f"  licences    {unknown:,} of the kept documents state none; [licence] in the recipe can drop them")
    for line in canaries(made.get("canaries")):
        screen.say(f"  {line}")
    if peak := made.get("peak_memory_bytes"):
        screen.say(f"  memory      {size(peak)} at most, all processes together")
    screen.say(f"  manifest    {made['manifest']}")


def trained(screen: Screen, result: Mapping[str, Any]) -> None:
    """What a run made: the model against the n-grams in bits per byte, and where everything lies."""
    screen.say(plain(f"{result['run']}, {result['steps']:,} steps", "bold"))
    scores = [("model", result.get("bits_per_byte"))]
    scores += [(NGRAMS.get(order, f"{order}-gram"), bits) for order, bits in dict(result.get("ngrams") or {}).items()]
    said = ", ".join(f"{name} {bits:.3f}" for name, bits in scores if isinstance(bits, float))
    if "accuracy" in result:
        commonest, bounds = result["baseline"]["accuracy"], result.get("accuracy_interval")
        between = f" [{bounds['low']:.3f}, {bounds['high']:.3f}]" if bounds else ""
        screen.say(f"  accuracy: {result['accuracy']:.3f}{between}, of the commonest class {commonest:.3f}")
    else:
        screen.say(f"  bits per byte: {said or 'not measured'}")
    for name in ("checkpoint", "report"):
        screen.say(f"  {name:<11} {result[name]}")


NGRAMS = {"2": "bigram", "3": "trigram"}


def after_training(screen: Screen, store: str, result: Mapping[str, Any]) -> None:
    """What to try after a run, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    screen.say("next:")
    screen.say(f"  gristmill show {shlex.quote(str(result['run']))}{place}")
    screen.say(f"  gristmill trace {shlex.quote(str(result['run']))} --step {result['steps']}{place}")
    screen.say(f"  python -P -m training export {shlex.quote(str(result['folder']))} exported")


def next_steps(
    screen: Screen, store: str, made: Mapping[str, Any], result: Mapping[str, Any], doc_id: str | None
) -> None:
    """What to try after a quickstart, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    screen.say("next:")
    screen.say(f"  gristmill show {made['name']}{place}")
    if doc_id and doc_id.isprintable():
        screen.say(f"  gristmill why {shlex.quote(doc_id)}{place}")
    screen.say(f"  gristmill audit {made['name']}{place}")
    screen.say(f"  gristmill generate {shlex.quote(str(result['folder']))} --prompt 'The mill'")
    screen.say(f"  gristmill train quickstart --set schedule.steps=2000{place}")


def serve_classifier(
    screen: Screen, store: str, made: Mapping[str, Any], result: Mapping[str, Any], exported: str
) -> None:
    """Where a classifier was exported to, how to serve and ask it, and what to try next, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    asked = {"model": Path(exported).name, "input": "Return the eigenvalues of a symmetric matrix."}
    body = shlex.quote(json.dumps(asked))
    screen.say(f"  {'exported':<11} {exported}")
    screen.say("next:")
    screen.say(f"  gristmill serve {shlex.quote(exported)} --port 8000")
    screen.say(f"  curl -s http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' -d {body}")
    screen.say(f"  gristmill show {shlex.quote(str(result['run']))}{place}")
    screen.say(f"  gristmill show {made['name']}{place}")
