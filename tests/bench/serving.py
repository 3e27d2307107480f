"""A server under many requests at once: `chrt -f 10 python tests/bench/serving.py [--write]`.

`gristmill serve` as a process of its own, with the shape of a model and weights that were never trained, is asked by
the `openai` client: so many requests at once, then one after the other. Each answer must be that of the same request
alone. Latency is from sending a request to its last token, as its client sees it; client and server share the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import table
from tests.bench.generation import MODELS
from tests.bench.measuring import note

WORDS = "the mill wheel turns with water from that river and grinds grain into flour while people wait".split()


def folder(name: str, place: Path) -> Path:
    """An exported model of this shape, with a small byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    from training import export, models

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer.add_tokens([f"<{n}>" for n in range(MODELS[name]["vocabulary"] - tokenizer.get_vocab_size())])
    place.mkdir()
    tokenizer.save(str(place / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    model = models.build(MODELS[name]["table"], vocab_size=size, length=1024, where="bench")
    model.initialise(1)
    export.export(model, tokenizer_file=place / "tokenizer.json", eot=0, length=1024, folder=place / "model")
    return place / "model"


async def ask(client: Any, number: int, tokens: int) -> tuple[float, str]:
    """Seconds and text of one request; every other one is streamed."""
    prompt = " ".join(WORDS[(number * 7 + k) % len(WORDS)] for k in range(4 + number % 13))
    asked = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    began = time.perf_counter()
    if number % 2:
        text = (await client.completions.create(**asked)).choices[0].text
    else:
        text = "".join([chunk.choices[0].text async for chunk in await client.completions.create(**asked, stream=True)])
    return time.perf_counter() - began, text


async def measure(address: str, options: argparse.Namespace) -> dict[str, Any]:
    """All at once, and one by one. Ends the bench where an answer is lost or another."""
    import httpx
    import openai

    limits = httpx.Limits(max_connections=options.requests)
    async with openai.AsyncOpenAI(
        base_url=address,
        api_key="none",
        max_retries=0,
        timeout=3600,
        http_client=httpx.AsyncClient(limits=limits, timeout=3600),
    ) as client:
        await ask(client, 0, options.new)
        began = time.perf_counter()
        together = await asyncio.gather(*(ask(client, n, options.new) for n in range(options.requests)))
        wall = time.perf_counter() - began
        alone = [await ask(client, number, options.new) for number in range(options.alone)]
    different = [n for n, (_, text) in enumerate(alone) if text != together[n][1]]
    if different:
        sys.exit(f"request {different[0]} has another answer beside others than alone")
    spent = sorted(seconds for seconds, _ in together)
    return {
        "wall": wall,
        "p50": statistics.median(spent),
        "p95": spent[int(0.95 * (len(spent) - 1))],
        "most": spent[-1],
        "speed": options.requests * options.new / wall,
        "alone": statistics.median(seconds for seconds, _ in alone),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen3 10 M", choices=[name for name in MODELS if name[:2] != "t5"])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20, help="of these so many are asked again, one by one (20)")
    parser.add_argument("--new", type=int, default=32, help="tokens that each asks for (32)")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = folder(options.model, Path(temporary) / "exported")
        command = [sys.executable, "-P", "-m", "training", "serve", str(place), "--port", "0", "--name", "m"]
        root = str(Path(__file__).resolve().parents[2])
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            note(line.strip())
            found = asyncio.run(measure(line.partition(" at ")[2].partition(";")[0], options))
        finally:
            process.terminate()
            process.wait()
    names = {"p50": "p50, s", "p95": "p95, s", "most": "longest, s", "alone": "one by one, s", "speed": "tokens/s"}
    cells = [options.model, str(options.requests), *(f"{found[name]:,.2f}" for name in names)]
    printed = (
        f"| model | requests at once | {' | '.join(names.values())} |\n|{'---|' * len(cells)}\n| {' | '.join(cells)} |"
    )
    print(printed)
    if options.write:
        command_ = " ".join(["chrt -f 10 python tests/bench/serving.py", *sys.argv[1:]])
        sizes = f"{options.new} tokens each, half of them streamed, 32 side by side; none lost, each answer as alone"
        table.section("serving", f"`{command_}`, {date.today()}, {table.machine()}. {sizes}.\n\n{printed}")


if __name__ == "__main__":
    main()
