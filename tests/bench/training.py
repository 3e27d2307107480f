"""A step of training against HF Trainer and a nanoGPT-style loop: `python tests/bench/training.py [--write]`.

6 layers, width 384, vocabulary 8,192, context 256, batch 16, bfloat16, all cores, on the same packed rows of the shared
corpus. Each side is a fresh process, all sides in turn and the order turned round with every run; medians over all
steps after warm-up. Of a compiled side the first steps are told apart, from an empty cache: what compiling costs, and
after how many steps it has paid. Peak memory is the process's, beside what the bare imports take. Before anything is
timed, both models of the peers are given our weights, or those of `transformers`, and must give the same loss.
`--preload` sets LD_PRELOAD on all sides (an allocator); `--write` puts the table into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import environment, packed, table, trainers
from tests.bench.measuring import note

LENGTH = 256
WARM = {False: 2, True: 3}  # steps that are not timed; a compiled side compiles in them
# The peers are run by an interpreter that has `accelerate` beside our packages.
AGAINST = ("HF Trainer", "nanoGPT", "nanoGPT, compiled")
SIDES = "; ".join(trainers.SIDES)
COLUMNS = "side | parameters | tokens/s | CPU s a step | {} | peak MB | above imports | compiling s | pays after steps"


def check(manifest: Path, threads: int) -> str:
    """Compare the losses of the same weights on one batch, in float32. Ends the bench where they differ."""
    import torch
    import transformers

    from tests.bench import nanogpt
    from training import hugging_face, models
    from training.objectives import _places

    torch.set_num_threads(threads)
    task = trainers.Task(manifest, 1, threads, manifest.parent)
    tokens, vocabulary = trainers.rows(task)
    ours = models.build(trainers.run(task).model, vocab_size=vocabulary, length=LENGTH, where="bench")
    ours.initialise(1)
    places = torch.arange(tokens.numel()).view(tokens.shape)
    batch = {"at": places[:, :-1].flatten(), "targets": tokens[:, 1:].flatten(), "tokens": tokens, "pieces": None}
    batch["positions"] = torch.arange(LENGTH).expand(tokens.shape)
    said = []
    with torch.no_grad():
        total, count = _places.loss(ours, batch)
        file = hugging_face.of_model(ours)
        config = file.config(ours, eot=0, length=LENGTH)
        theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
        theirs.load_state_dict(file.theirs(ours), strict=False)
        theirs.tie_weights()
        said.append((float(total / count), float(theirs(tokens, labels=tokens).loss)))
        shape = {"n_layer": trainers.LAYERS, "n_embd": trainers.WIDTH, "n_head": trainers.HEADS, "n_positions": LENGTH}
        stock = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=vocabulary, activation_function="gelu", **shape)
        ).eval()
        nano = nanogpt.GPT(trainers.LAYERS, trainers.WIDTH, trainers.HEADS, vocabulary, LENGTH)
        _fill(nano, stock)
        following = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -100)], 1)  # -100: no target
        said.append((float(nano(tokens, following)), float(stock(tokens, labels=tokens).loss)))
    if not all(math.isclose(a, b, rel_tol=1e-5) for a, b in said):
        sys.exit(f"the same weights do not give the same losses: {said}")
    return f"same weights, same losses: ours and the Trainer's model {said[0]}, nanoGPT and GPT-2 {said[1]}"


def _fill(nano: Any, stock: Any) -> None:
    """nanoGPT's weights from a GPT-2 of `transformers`, whose matrices stand the other way and whose biases are 0."""
    state = stock.transformer.state_dict()
    names = {"attn_proj": "attn.c_proj", "c_attn": "attn.c_attn", "c_fc": "mlp.c_fc", "c_proj": "mlp.c_proj"}
    for name, parameter in nano.named_parameters():
        *layer, last, _ = name.split(".")
        value = state[".".join([*layer, names.get(last, last), "weight"])]
        parameter.copy_(value.T if last in names else value)


def child(python: str, side: str, manifest: Path, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """What one side says of so many steps."""
    with tempfile.TemporaryDirectory(prefix="bench-") as cache:
        made = {"TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        preload = {"LD_PRELOAD": str(options.preload)} if options.preload else {}
        done = subprocess.run(
            [python, str(Path(trainers.__file__)), side, str(manifest), str(steps), str(options.threads)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **made, **preload},
        )
    if done.returncode:
        sys.exit(f"{side}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(found: dict[str, list[dict[str, Any]]], tokens: float) -> list[dict[str, Any]]:
    """The figures of each side: medians over steps and runs."""
    made = []
    for side, runs in found.items():
        warm = WARM["compiled" in side]
        step, spent = (statistics.median(s for run in runs for s in run[what][warm:]) for what in ("wall", "cpu"))
        row = {"side": side, "parameters": runs[0]["parameters"], "step": step, "cpu": spent, "speed": tokens / step}
        row |= {name: statistics.median(run[name] for run in runs) for name in ("peak", "bare")}
        if "compiled" in side:
            row["compiling"] = statistics.median(sum(run["wall"][:warm]) - warm * step for run in runs)
        made.append(row)
    by = {row["side"]: row for row in made}
    for side, row in by.items():
        eager = by.get(side.replace(", compiled", ""))
        if "compiling" in row and eager:
            gain = eager["step"] - row["step"]
            row["pays"] = math.ceil(row["compiling"] / gain) if gain > 0 else None
    return made


def text(made: Sequence[dict[str, Any]]) -> str:
    """The table, with a column of speed ratios for each peer that was run."""
    peers = [row for row in made if row["side"] in AGAINST]
    columns = COLUMNS.format(" | ".join(f"against {row['side']}" for row in peers)) if peers else COLUMNS
    lines = [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]
    for row in made:
        cells = [row["side"], f"{row['parameters'] / 1e6:.2f} M", f"{row['speed']:,.0f}", f"{row['cpu']:.2f}"]
        cells += [f"{peer['step'] / row['step']:.2f}x" for peer in peers]
        cells += [f"{row['peak'] / 1e6:,.0f}", f"{(row['peak'] - row['bare']) / 1e6:,.0f}"]
        cells += [f"{row['compiling']:.0f}" if "compiling" in row else "-"]
        cells += [str(row["pays"] or "never") if "pays" in row else "-"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the sides in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(trainers.SIDES), metavar="SIDE", help=SIDES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="steps that each run times, after warm-up (10)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--preload", type=Path, help="a library for LD_PRELOAD, the same on all sides")
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds corpus/")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    if unknown := set(options.only) - set(trainers.SIDES):
        parser.error(f"no side {sorted(unknown)[0]!r}; has: {'; '.join(trainers.SIDES)}")
    manifest = packed.version(LENGTH, options.data)
    peers, failed = environment.peers(environment.BESIDE)
    if failed:
        sys.exit(f"{environment.BESIDE.name}: {failed}")
    said = check(manifest, options.threads)
    note(said)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in options.only}
    for number in range(options.runs):
        for side in options.only if number % 2 == 0 else reversed(options.only):
            python = str(peers) if side == "HF Trainer" else sys.executable
            run = child(python, side, manifest, WARM["compiled" in side] + options.steps, options)
            found[side].append(run)
            middle = statistics.median(run["wall"][WARM["compiled" in side] :])
            note(f"{side}: {middle:.2f} s a step, losses {run['losses']}")
    printed = text(rows(found, trainers.ROWS * LENGTH))
    print(printed)
    if options.write:
        import torch
        import transformers

        beside = ", ".join(environment.requirements(environment.BESIDE))
        made = f"torch {torch.__version__}, transformers {transformers.__version__}, {beside}"
        command = " ".join(["python tests/bench/training.py", *sys.argv[1:]])
        how = f"`{command}`, {date.today()}, {table.machine()}, {options.threads} threads. {made}.\n\n{said}."
        table.section("training", f"{how}\n\n{printed}")


if __name__ == "__main__":
    main()
