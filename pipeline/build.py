"""The whole chain of the data half: from a recipe to a sealed version.

    look -> segments (per document) -> judge -> relate -> survivors -> vocabulary -> encode -> mix -> pack -> seal

The chain is the same whatever runner does the tasks; each step plans keys, has them done,
and goes on from what lies in the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from pipeline import books, canaries, plan
from pipeline.kernels import _jit
from pipeline.limits import DEFAULT_MEMORY, Limits
from pipeline.manifest import Version
from pipeline.recipe import Recipe, parse_size
from pipeline.runner import Local, Progress, Runner, Silent
from pipeline.seal import seal
from pipeline.store import Store

# Bytes a task from which on steps that see the whole corpus are done side by side, and by several threads each.
ROOMY = 1_000_000_000


def compiled() -> bool:
    """Whether kernels lie compiled on this machine."""
    folder = _jit._folder()
    return folder is not None and any(folder.rglob("*.nbc"))


@dataclass
class Mill:
    """A store, who does the tasks and how many at once, how finely the work is cut; the result knows none of it."""

    store: Store
    runner: Runner = field(default_factory=Local)
    progress: Progress = field(default_factory=Silent)
    partition_bytes: int = 8_000_000
    batch_rows: int = 4096
    memory: int = DEFAULT_MEMORY
    workers: int = 1

    def do(self, label: str, keys: Sequence[str], sizes: Sequence[int] | None = None) -> None:
        """Have every task of `keys` done that is not. What stands already is hashed again before it is believed.

        Tasks whose `sizes` are known begin with the largest, so that no worker waits long for another's last one.
        """
        self.progress.phase(label, len(keys))
        # Roughly, so that neighbours, who may share what they read, stay neighbours.
        steps = [-4 * size // self.partition_bytes for size in sizes or [0] * len(keys)]
        todo = []
        for key in dict.fromkeys(key for _, key in sorted(zip(steps, keys, strict=True), key=itemgetter(0))):
            if self.store.done(key) is None:
                todo.append(key)
            else:
                self.store.check(key)
        self.progress.advance(len(keys) - len(todo))
        limits = Limits(self.batch_rows, self.memory, self.workers if self.memory >= ROOMY else 1)
        for _ in self.runner.map(str(self.store.root.resolve()), todo, limits, label):
            self.progress.advance()

    def build(self, recipe: Recipe, inputs: Sequence[plan.Input] | None = None) -> Version:
        """Build and seal, from `inputs` where they are known.

        Raises ConfigError, SourceError, StoreError, ContractError or WorkerLost."""
        tried = canaries.task(self.store, recipe)
        self.do(f"canaries{'' if compiled() else ', and compile kernels: half a minute, once on a machine'}", [tried])
        canaries.judge(recipe, self.store.result(tried)["rules"])
        self.progress.phase("find input", 1)
        inputs = plan.look(recipe) if inputs is None else inputs
        self.progress.advance()
        given = plan.given_vocabulary_task(self.store, recipe)
        keys = self._relate(recipe, inputs, [given] if given else [])
        keys.canaries = tried
        books.check_train(self.store, keys)
        last = keys.segments[-1]
        keys.vocabulary = given or plan.vocabulary_task(
            self.store, recipe, last.parts, last.survivors, parse_size(recipe.tokens.sample)
        )
        self.do("vocabulary", [keys.vocabulary])
        keys.encoded = plan.encode_tasks(self.store, recipe, last.parts, last.survivors, keys.vocabulary)
        self.do("encode", keys.encoded, self._sizes(last.parts))
        if recipe.mix:
            keys.mix = plan.mix_task(self.store, recipe, keys.encoded, [segment.parts for segment in keys.segments])
            self.do("mix", [keys.mix])
        eot = self.store.result(keys.vocabulary)["eot"]
        keys.packed = plan.pack_task(self.store, recipe, keys.encoded, eot, keys.mix)
        self.do("pack", [keys.packed])
        self.progress.phase("seal", 1)
        version = seal(self.store, recipe, inputs, keys)
        self.progress.advance()
        return version

    def _relate(self, recipe: Recipe, inputs: Sequence[plan.Input], beside: Sequence[str]) -> books.BuildKeys:
        """Every segment, its judgement and its relating stages, up to the last survivors.

        `beside` are tasks that wait for nothing: they are done while workers would wait.
        """
        keys = books.BuildKeys(segments=[])
        read = list(plan.partitions(inputs, self.partition_bytes))
        given: list[plan.Partition] | list[str] = read
        for number, segment in enumerate(recipe.segments):
            left = keys.segments[-1].survivors if keys.segments else ""
            cuts = keys.segments[-1].cuts if keys.segments else {}
            parts = plan.segment_tasks(self.store, recipe, segment, number, given, left, cuts)
            names = ", ".join(step.stage.name for step in segment.steps)
            sizes = self._sizes(keys.segments[-1].parts) if keys.segments else [part.weight for part in read]
            self.do(f"{'read' if number == 0 else 'go on'}: {names}" if names else "read", parts, sizes)
            here = books.SegmentKeys(parts, plan.judge_task(self.store, recipe, segment, number, parts))
            keys.segments.append(here)
            # What compares reads sketches, what judges reads signals: neither waits for the other.
            compared = [plan.pairs_task(self.store, step, parts) for step in segment.relates]
            names = ", ".join(step.stage.name for step in segment.relates)
            # They hold tables of the whole corpus, so side by side only where there is room for several.
            label, tasks = f"judge; compare: {names}" if names else "judge", [*reversed(compared), here.judge, *beside]
            for together in [tasks] if self.memory >= ROOMY else [[task] for task in tasks]:
                self.do(label, together)
            beside = []
            for step, pairs in zip(segment.relates, compared, strict=True):
                self._relating(step, pairs, here)
            relations = [(r["stage"], r["cluster"]) for s in keys.segments for r in s.relates if "cuts" not in r]
            here.survivors = plan.survivors_task(
                self.store, recipe, parts, here.ledgers, relations if number == recipe.assigning else None
            )
            self.do("survivors", [here.survivors])
            books.check_bands(recipe, self.store, keys)
            given = parts
        return keys

    def _sizes(self, parts: Sequence[str]) -> list[int]:
        """Bytes of text that entered each partition of a segment."""
        return [self.store.result(part)["text_bytes"] for part in parts]

    def _relating(self, step: plan.Step, pairs: str, here: books.SegmentKeys) -> None:
        cluster = plan.cluster_task(self.store, step, here.parts, pairs, here.ledgers)
        self.do(f"{'cut' if step.stage.cuts else 'cluster'}: {step.stage.name}", [cluster])
        here.relates.append({"stage": step.stage.name, "pairs": pairs, "cluster": cluster})
        if step.stage.cuts:
            here.relates[-1]["cuts"] = cluster
