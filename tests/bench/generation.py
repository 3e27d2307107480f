"""Greedy continuations against `transformers.generate`: `chrt -f 10 python tests/bench/generation.py [--write]`.

Both sides have the same weights, and continue the same prompts by the same number of
tokens with a cache of keys and values, float32, in one process and turn by turn, the order turned round with every run;
medians. Their tokens are compared before anything is timed. `chrt` keeps others off the cores. `--write` puts the table
into RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import table
from tests.bench.measuring import note

# Layers, width and heads of models that people run on a CPU, with weights that were never trained: speed is the same.
MODELS: dict[str, dict[str, Any]] = {
    "llama 135 M": {
        "table": {"family": "gpt", "form": "llama", "layers": 30, "width": 576, "heads": 9, "kv_heads": 3}
        | {"feed_forward": 1536},
        "vocabulary": 49152,
    },
    "qwen3 10 M": {
        "table": {"family": "gpt", "form": "qwen3", "layers": 6, "width": 384, "heads": 6},
        "vocabulary": 8192,
    },
    "gpt2 10 M": {
        "table": {"family": "gpt", "form": "gpt2", "layers": 6, "width": 384, "heads": 6},
        "vocabulary": 8192,
    },
    "t5 20 M": {"table": {"family": "t5", "layers": 6, "width": 384, "heads": 6}, "vocabulary": 8192},
}
PROMPT, NEW = 32, 64


def sides(name: str, rows: int, new: int) -> tuple[Callable[[], list[list[int]]], Callable[[], list[list[int]]]]:
    """What continues `rows` prompts, ours and theirs: each gives the new tokens."""
    import torch
    import transformers

    from training import hugging_face, models
    from training.generate import generate

    what = MODELS[name]
    size = what["vocabulary"]
    ours = models.build(what["table"], vocab_size=size, length=1024, where="bench")
    ours.initialise(1)
    file = hugging_face.of_model(ours)
    config = transformers.AutoConfig.for_model(**file.config(ours, eot=0, length=1024))
    pairs = what["table"]["family"] == "t5"
    kind = transformers.AutoModelForSeq2SeqLM if pairs else transformers.AutoModelForCausalLM
    theirs = kind.from_config(config).eval()
    if pairs:  # a head of its own, as t5 v1.1 has it
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    theirs.load_state_dict(file.theirs(ours), strict=False)
    if not pairs:
        theirs.tie_weights()
    theirs.generation_config.eos_token_id = None  # both go on to the last token
    prompts = torch.randint(1, size, (rows, PROMPT), generator=torch.Generator().manual_seed(rows))

    def mine() -> list[list[int]]:
        settings: dict[str, Any] = {"temperature": 0.0, "top_k": None, "top_p": None, "return_sequences": 1, "seed": 0}
        made = generate(ours, prompts.tolist(), new_tokens=new, eot=0, ends=(), **settings)
        return [tokens for [tokens] in made]

    def others() -> list[list[int]]:
        with torch.inference_mode():
            said = theirs.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )
        found: list[list[int]] = said[:, 1 if pairs else PROMPT :].tolist()
        return found

    return mine, others


def measure(name: str, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of both sides: medians of their runs. Ends the bench where their tokens differ."""
    mine, others = sides(name, rows, options.new)
    if mine() != others():
        sys.exit(f"{name}: the same weights and prompts do not give the same tokens")
    spent: dict[Callable[[], Any], list[float]] = {mine: [], others: []}
    for number in range(options.runs):
        for side in (mine, others) if number % 2 == 0 else (others, mine):
            began = time.perf_counter()
            side()
            spent[side].append(time.perf_counter() - began)
    ours, theirs = (rows * options.new / statistics.median(spent[side]) for side in (mine, others))
    note(f"{name}, batch {rows}: {ours:,.0f} against {theirs:,.0f} tokens/s")
    return {"model": name, "batch": rows, "ours": ours, "theirs": theirs}


def text(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| model | batch | gristmill, tokens/s | transformers, tokens/s | times |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row["model"], row["batch"], f"{row['ours']:,.0f}", f"{row['theirs']:,.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {row['ours'] / row['theirs']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(MODELS), metavar="MODEL", help="; ".join(MODELS))
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--new", type=int, default=NEW, help=f"tokens that are added ({NEW})")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    if unknown := set(options.only) - set(MODELS):
        parser.error(f"no model {sorted(unknown)[0]!r}; has: {'; '.join(MODELS)}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=folder)
        import torch
        import transformers

        torch.set_num_threads(options.threads)
        printed = text([measure(name, rows, options) for name in options.only for rows in options.batch])
    print(printed)
    if options.write:
        made = f"torch {torch.__version__}, transformers {transformers.__version__}"
        command = " ".join(["chrt -f 10 python tests/bench/generation.py", *sys.argv[1:]])
        sizes = f"prompts of {PROMPT} tokens, {options.new} new ones, greedy, float32; the same tokens on both sides"
        how = f"`{command}`, {date.today()}, {table.machine()}, {options.threads} threads. {made}. {sizes}."
        table.section("generation", f"{how}\n\n{printed}")


if __name__ == "__main__":
    main()
