"""The sides of tests/bench/training.py: each trains the same packed rows at the same shape, one step at a time.

    python tests/bench/trainers.py SIDE MANIFEST STEPS THREADS   prints one JSON object at its end

A side is made by a function of a task, and yields after each step. Its imports are done before the clock and the
memory of the step are looked at.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

LAYERS, WIDTH, HEADS, ROWS, SEED = 6, 384, 6, 16, 3


@dataclass
class Task:
    """What a side is to do; `parameters` it tells."""

    manifest: Path
    steps: int
    threads: int
    folder: Path
    parameters: int = 0


def run(task: Task, **tables: Any) -> Any:
    """Our run file."""
    from training import config

    shape = {"family": "gpt", "layers": LAYERS, "width": WIDTH, "heads": HEADS}
    precision = {"threads": task.threads, **tables.pop("precision", {})}
    whole = {"name": "bench", "seed": SEED, "model": shape, "schedule": {"steps": task.steps + 1}}
    return config.Run.model_validate({**whole, "batch": {"rows": ROWS}, "precision": precision, **tables})


def gristmill(task: Task, **tables: Any) -> Iterator[float]:
    """The loop of a run as it is: order, loader, document masks, loss, clipping, optimiser, hash chain, journal."""
    from training import journal, loop, machine, mix
    from training.parallel import joined
    from training.progress import Silent
    from training.stop import Stop

    settings = run(task, **tables)
    with joined(settings.precision) as group:
        settings, version = mix.opened(settings, [task.manifest], task.folder, verify=False)
        books = journal.start(task.folder, settings, version, None, group)
        books.write(peak=machine.peak_flops("bf16"))
        trained = loop.Loop(settings, version, books, group, Silent())
        task.parameters = trained.model.parameter_counts()["parameters"]
        stop = Stop()
        for _ in range(task.steps):
            trained.advance(stop)
            yield books.entries("step")[-1]["loss"] if trained.step in (1, task.steps) else math.nan
        trained.loader.close()


def rows(task: Task) -> Any:
    """The rows [steps x 16, length] int64 that our loop reads, in its order; and its model's vocabulary."""
    import numpy as np
    import torch

    from training.manifest import open_version
    from training.mix import Stream

    version = open_version(task.manifest, verify=False)
    stream = Stream(run(task), version)
    tokens = np.concatenate([stream.step(step).tokens for step in range(task.steps)]).astype(np.int64)
    return torch.from_numpy(tokens), version.manifest.tokenizer.vocab_size


def nanogpt(task: Task, compiled: bool = False) -> Iterator[float]:
    """A loop in the style of nanoGPT; see there."""
    import torch

    from tests.bench import nanogpt as peer

    torch.set_num_threads(task.threads)
    torch.manual_seed(SEED)
    tokens, vocabulary = rows(task)
    model = peer.GPT(LAYERS, WIDTH, HEADS, vocabulary, tokens.shape[1])
    task.parameters = sum(p.numel() for p in model.parameters())
    for step, loss in enumerate(peer.train(model, tokens, ROWS, compiled), 1):
        yield float(loss) if step in (1, task.steps) else math.nan


def trainer(task: Task) -> Iterator[float]:
    """HF Trainer with the stock Qwen3 class of our shape. It is run in a thread that waits after each step."""
    import threading

    import torch
    import transformers

    torch.set_num_threads(task.threads)
    tokens, vocabulary = rows(task)
    shape = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    heads = {"num_key_value_heads": HEADS, "head_dim": WIDTH // HEADS, "intermediate_size": _feed_forward()}
    config = transformers.Qwen3Config(
        **shape, **heads, vocab_size=vocabulary, tie_word_embeddings=True, max_position_embeddings=tokens.shape[1]
    )
    config.use_cache = False
    transformers.set_seed(SEED)
    model = transformers.Qwen3ForCausalLM(config)
    task.parameters = sum(p.numel() for p in model.parameters())
    ready, go = threading.Semaphore(0), threading.Semaphore(0)

    class Steps(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ready.release()
            go.acquire()

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(examples)

    examples = [{"input_ids": row, "labels": row} for row in tokens]
    settings = transformers.TrainingArguments(
        output_dir=str(task.folder),
        max_steps=task.steps,
        per_device_train_batch_size=ROWS,
        use_cpu=True,
        bf16=True,
        optim="adamw_torch_fused",
        learning_rate=6e-4,
        weight_decay=0.1,
        max_grad_norm=1.0,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    made = InOrder(model=model, args=settings, train_dataset=examples, callbacks=[Steps()])
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(made.train().training_loss), daemon=True)
    thread.start()
    for step in range(1, task.steps + 1):
        ready.acquire()
        yield math.nan
        go.release()
        if step == task.steps:
            thread.join()
    yield found[0]


def _feed_forward() -> int:
    from training.models.gpt import Config

    return Config.model_validate({"layers": LAYERS, "width": WIDTH, "heads": HEADS}).feed_forward


MUON, ADAMW = {"use": "muon"}, {"use": "adamw", "learning_rate": 6e-4}
SIDES: dict[str, Callable[[Task], Iterator[float]]] = {
    "gristmill": lambda task: gristmill(task, optimizer=MUON),
    "gristmill, micro_rows 16": lambda task: gristmill(task, optimizer=MUON, batch={"rows": ROWS, "micro_rows": ROWS}),
    "gristmill, AdamW": lambda task: gristmill(task, optimizer=ADAMW),
    "gristmill, compiled": lambda task: gristmill(task, optimizer=MUON, precision={"compile": True}),
    "gristmill, micro_rows 16, compiled": lambda task: gristmill(
        task, optimizer=MUON, batch={"rows": ROWS, "micro_rows": ROWS}, precision={"compile": True}
    ),
    "gristmill, AdamW, compiled": lambda task: gristmill(task, optimizer=ADAMW, precision={"compile": True}),
    "nanoGPT": nanogpt,
    "nanoGPT, compiled": lambda task: nanogpt(task, compiled=True),
    "HF Trainer": trainer,
}


def imports(side: str) -> None:
    """Load what a side needs, so that what follows is its own."""
    import torch  # noqa: F401

    if side.startswith("gristmill"):
        from training import loop  # noqa: F401
    elif side == "HF Trainer":
        from transformers import Qwen3ForCausalLM, Trainer  # noqa: F401


def peak() -> int:
    """The most bytes that this process has had resident; what getrusage says begins with its parent's."""
    said = Path("/proc/self/status").read_text("ascii")
    return int(said.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Train and say what it took."""
    side, manifest, steps, threads = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    imports(side)
    bare = peak()
    wall, cpu, said = [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        task = Task(manifest, steps, threads, Path(folder))
        at, spent = time.perf_counter(), time.process_time()
        for loss in SIDES[side](task):
            now, used = time.perf_counter(), time.process_time()
            wall.append(now - at)
            cpu.append(used - spent)
            said.append(loss)
            at, spent = time.perf_counter(), time.process_time()
    losses = [loss for loss in said if not math.isnan(loss)]
    found = {"wall": wall[:steps], "cpu": cpu[:steps], "losses": losses, "parameters": task.parameters}
    print(json.dumps({**found, "bare": bare, "peak": peak()}))


if __name__ == "__main__":
    main()
