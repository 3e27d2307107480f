"""Attention over packed documents against unmasked causal: `python tests/bench/attention.py [--runs 3] [--write]`.

One measurement is what a step of 6 layers asks of attention: the plan of who sees what, once, then forward and backward
of 6 heads of width 64 in each layer, in bfloat16, over 4,096 tokens in rows of 256 to 2,048. The pieces are those of
the shared corpus, packed at that length, in the order of a run. Each run is a fresh process in which the sides take
turns, so that what else the machine does falls on all; medians of seconds. Before anything is timed, each side is
compared with a dense mask in float32, results and gradients.

    documents          ours: each token sees its own document piece up to itself
    causal             ours, one piece a row
    SDPA causal        torch's scaled_dot_product_attention with is_causal
    SDPA, dense mask   the same with the mask of the documents [B, 1, T, T]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import packed, table
from tests.bench.measuring import note

LENGTHS = (256, 512, 1024, 2048)
TOKENS, LAYERS, HEADS, WIDTH, SEED = 4096, 6, 6, 64, 3
SIDES = ("documents", "causal", "SDPA causal", "SDPA, dense mask")
TARGETS = {1024: "at most 1.05 of the faster causal", 2048: "below 1"}


def pieces(manifest: Path, length: int, number: int) -> Any:
    """The pieces [4096 / length, length] int32 of the rows of step `number`."""
    import torch

    from training import config
    from training.manifest import open_version
    from training.mix import Stream

    rows = TOKENS // length
    table = {"name": "bench", "seed": SEED, "model": {"family": "gpt"}, "schedule": {"steps": 1 << 20}}
    run = config.Run.model_validate({**table, "batch": {"rows": rows, "micro_rows": rows}})
    return torch.from_numpy(Stream(run, open_version(manifest, verify=False)).step(number).layout()[0])


def plan(side: str, piece: Any) -> Any:
    """What a token sees, as `attention` takes it."""
    from training.models import _blocks, layers

    rows, length = piece.shape
    if side in ("documents", "causal"):
        return _blocks.lay_out(piece if side == "documents" else None, rows, length, HEADS, HEADS)
    return None if side == "SDPA causal" else layers.up_to(piece, piece)


def layer(inputs: list[Any], sight: Any, given: Any) -> list[Any]:
    """Forward and backward of one layer: its result and the gradients of queries, keys and values."""
    import torch

    from training.models.layers import attention

    made = attention(*inputs, sight)
    return [made.detach(), *torch.autograd.grad(made, inputs, given)]


def drawn(length: int, dtype: Any) -> tuple[list[Any], Any]:
    """Queries, keys and values [B, T, H, D], and the gradient of what comes of them."""
    import torch

    generator = torch.Generator().manual_seed(SEED)
    shape = (TOKENS // length, length, HEADS, WIDTH)
    *inputs, given = (torch.randn(shape, generator=generator).to(dtype) for _ in range(4))
    return [x.requires_grad_() for x in inputs], given


def check(piece: Any) -> float:
    """The largest difference of any side from the dense mask, in float32. Ends the bench above 2e-5."""
    import torch

    worst = 0.0
    inputs, given = drawn(piece.shape[1], torch.float32)
    for side in SIDES:
        seen = piece if side in ("documents", "SDPA, dense mask") else torch.zeros_like(piece)
        exact = layer(inputs, plan("SDPA, dense mask", seen), given)
        found = layer(inputs, plan(side, piece), given)
        worst = max([worst, *(float((a - b).abs().max()) for a, b in zip(exact, found, strict=True))])
    if worst > 2e-5:
        sys.exit(f"{piece.shape[1]}: a side differs from the dense mask by {worst}")
    return worst


def timed(manifest: Path, length: int, repeats: int, threads: int) -> dict[str, Any]:
    """Seconds of each side, in turn, each repeat on the rows of another step."""
    import torch

    torch.set_num_threads(threads)
    worst = check(pieces(manifest, length, 0))
    inputs, given = drawn(length, torch.bfloat16)
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    count = []
    for number in range(repeats + 1):
        piece = pieces(manifest, length, number)
        count.append(int(piece.max()) + 1)
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            began = time.perf_counter()
            sight = plan(side, piece)
            for _ in range(LAYERS):
                layer(inputs, sight, given)
            found[side].append(time.perf_counter() - began)
    seconds = {side: times[1:] for side, times in found.items()}
    return {"seconds": seconds, "worst": worst, "pieces": statistics.mean(count)}


def text(found: dict[int, list[dict[str, Any]]]) -> str:
    """A line a length: milliseconds of each side, and what documents cost beside the faster of the two causal ones."""
    columns = ["length", "pieces a row", *(f"{side}, ms" for side in SIDES), "documents / causal", "wanted", "differs"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for length, runs in found.items():
        middle = {side: statistics.median(s for run in runs for s in run["seconds"][side]) for side in SIDES}
        best = min(("causal", "SDPA causal"), key=middle.__getitem__)
        a_row = statistics.mean(run["pieces"] for run in runs) * length / TOKENS
        cells = [str(length), f"{a_row:.1f}", *(f"{middle[side] * 1e3:.1f}" for side in SIDES)]
        cells += [f"{middle['documents'] / middle[best]:.2f} ({best})", TARGETS.get(length, "-")]
        lines.append(f"| {' | '.join([*cells, format(max(run['worst'] for run in runs), '.0e')])} |")
    return "\n".join(lines)


def main() -> None:
    """Run the lengths in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10, help="measurements of each side in a run (10)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds corpus/")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--side", nargs=2, metavar=("MANIFEST", "LENGTH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        manifest, length = Path(options.side[0]), int(options.side[1])
        print(json.dumps(timed(manifest, length, options.repeats, options.threads)))
        return
    manifests = {length: packed.version(length, options.data) for length in LENGTHS}
    found: dict[int, list[dict[str, Any]]] = {length: [] for length in LENGTHS}
    for _ in range(options.runs):
        for length, manifest in manifests.items():
            found[length].append(_child(manifest, length, options))
            note(text({length: found[length]}).splitlines()[-1])
    printed = text(found)
    print(printed)
    if options.write:
        import torch

        command = " ".join(["python tests/bench/attention.py", *sys.argv[1:]])
        how = f"`{command}`, {date.today()}, {table.machine()}, {options.threads} threads, torch {torch.__version__}."
        table.section("attention", f"{how}\n\n{printed}")


def _child(manifest: Path, length: int, options: argparse.Namespace) -> dict[str, Any]:
    asked = ["--repeats", str(options.repeats), "--threads", str(options.threads)]
    done = subprocess.run(
        [sys.executable, __file__, "--side", str(manifest), str(length), *asked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(options.threads)},
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


if __name__ == "__main__":
    main()
