"""The run file: what is trained, on which rows, for how long, checked whole before anything runs.

One run file and one version are one run: `digest` names the two, and nothing in it depends on the
machine, so a run can be resumed elsewhere. What may differ without making another run (micro-batches,
threads, processes and what they share, how often to look) is left out of the digest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from training import TrainingError
from training.manifest import digest
from training.tables import Table, check

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Batch(Table):
    """`rows` a step over all processes; `micro_rows` are computed at once by one of them, and `ahead` steps are laid
    out before they are asked for (0: none, without a thread)."""

    rows: Positive = 32
    micro_rows: Positive = 8
    ahead: Annotated[int, Field(ge=0, le=64)] = 2


class Part(Table):
    """One part of a mixture: a version (NAME, NAME@VERSION, or the path of a manifest; by default the run's own),
    all of its training rows or those of one `source`, and its weight beside those of the other parts."""

    version: str | None = None
    source: str | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


RATES = {"muon": 0.01, "adamw": 0.001}
# Muon's in a T5, which does not divide its scores by the root of a head's width, so that the same step moves them eight
# times as far: a model of 2 x 128 copies six of 500 tokens after 500 steps at .002 (.6 nats), and stays at 2.7 at .005.
T5_MUON = 0.002


class Optimizer(Table):
    """`muon` turns the matrices of the layers by Muon and all else by AdamW; `adamw` all by AdamW. Where the run file
    says no `learning_rate` it is `RATES`' own, which tests/bench/learning.py is run with; of a T5 that Muon turns it is
    T5_MUON.

    `average` is the decay of an exponential moving average of the weights, which is then what is evaluated, exported
    and continued. A step whose loss or gradient is not finite changes no weight; at the `patience`-th in a row the
    run stops.
    """

    use: Literal["muon", "adamw"] = "muon"
    learning_rate: Annotated[float, Field(gt=0)] = Field(default_factory=lambda table: RATES.get(table.get("use"), 0))
    embedding_learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    momentum: Share = 0.95
    betas: tuple[Share, Share] = (0.9, 0.95)
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] | None = None
    patience: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, table: Any) -> Any:
        """TOML has no tuples."""
        if isinstance(table, dict) and isinstance(table.get("betas"), list):
            return {**table, "betas": tuple(table["betas"])}
        return table


class Schedule(Table):
    """Up in `warmup` steps (by default a fiftieth of all); then `wsd` stays level and falls to `floor` in the last
    `decay` steps (by default half of all), while `cosine` and `linear` fall over all the steps that are left."""

    shape: Literal["wsd", "cosine", "linear"] = "wsd"
    steps: Positive
    warmup: Annotated[int, Field(ge=0)] = Field(default_factory=lambda table: table.get("steps", 0) // 50)
    decay: Annotated[int, Field(ge=0)] = Field(default_factory=lambda table: _decay(table))
    floor: Share = 0.0

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        if self.warmup + self.decay > self.steps:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} do not fit into {self.steps} steps")
        if self.shape != "wsd" and self.decay:
            raise ValueError(f"{self.shape} falls from the warmup on; decay is a key of wsd")
        return self


def _decay(table: Mapping[str, Any]) -> int:
    """Half of the steps, or what a longer warmup leaves of them; of a shape that falls all the way none."""
    steps, warmup = table.get("steps", 0), table.get("warmup", 0)
    return min(steps // 2, max(steps - warmup, 0)) if table.get("shape") == "wsd" else 0


class Precision(Table):
    """`bf16` runs matrix products in bfloat16 under autocast; weights and sums stay in float32."""

    compute: Literal["bf16", "float32"] = "bf16"
    compile: bool = False
    threads: Positive | None = None


class Evaluation(Table):
    """Every `every` steps the loss on `rows` rows of `split`; at the end on all of it, beside n-grams of `orders`."""

    split: str = "val"
    every: Positive = 100
    rows: Positive = 64
    micro_rows: Positive = 16
    orders: list[Annotated[int, Field(ge=1, le=8)]] = Field(default_factory=lambda: [2, 3, 4])


class Checkpoint(Table):
    """A checkpoint every `every` steps and at the end; the newest `keep` stay, and with `keep_best` the one whose
    validation loss is the lowest, among those whose step was validated."""

    every: Positive = 500
    keep: Positive = 2
    keep_best: bool = False


class Parallel(Table):
    """How several processes share a model: `ddp` has it whole in each, `fsdp` shards weights, gradients and optimiser.

    `auto` is `ddp`. `activation_checkpointing` computes each layer twice rather than keeping what is inside it.
    """

    use: Literal["auto", "ddp", "fsdp"] = "auto"
    activation_checkpointing: bool = False


class Samples(Table):
    """What the model writes in the report: to `prompts`, and to `documents` documents of the split. A decoder continues
    the first `prompt_tokens` of each; one that writes one text from another (seq2seq, span) reads them whole, and is
    shown beside the target, with the likeliest token each time."""

    prompts: list[str] = Field(default_factory=list)
    documents: Annotated[int, Field(ge=0)] = 3
    prompt_tokens: Positive = 24
    new_tokens: Annotated[int, Field(ge=0)] = 64
    temperature: Annotated[float, Field(ge=0)] = 0.8
    top_k: Positive | None = 50
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    return_sequences: Positive = 2


class Log(Table):
    """`tensorboard` writes event files into the run's folder: by default where the package is installed."""

    tensorboard: bool | None = None


class Init(Table):
    """What the first weights were read from: written `init = "DIR"` in a run file, looked up by `load`."""

    folder: str
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Lora(Table):
    """Where this table stands, the model of `init` is frozen and learns by low-rank adaptation: of each matrix a change
    of that `rank`, times `alpha` / `rank`. `modules` are names of matrices of the layers (query, key, value, output,
    gate, up, down); unset: all of them. A classifier's head is trained as ever."""

    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    modules: Annotated[list[str], Field(min_length=1)] | None = None

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank


class Run(Table):
    """A run file. `model` and `objective` are checked by the family and the objective that they name; `size` is a
    dial that fills what they and others leave open (`sizes`)."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    init: Init | None = None
    size: str | None = None
    model: dict[str, Any]
    objective: dict[str, Any] = Field(default_factory=lambda: {"use": "causal"})
    lora: Lora | None = None
    mix: list[Part] = Field(default_factory=list)
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    precision: Precision = Precision()
    parallel: Parallel = Parallel()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    samples: Samples = Samples()
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _rates_of_a_t5(cls, table: Any) -> Any:
        model, optimizer = (table.get(key, {}) if isinstance(table, dict) else None for key in ("model", "optimizer"))
        if not isinstance(model, Mapping) or not isinstance(optimizer, Mapping):
            return table  # the fields' own checks say what is wrong
        if model.get("family") != "t5" or optimizer.get("use", "muon") != "muon":
            return table
        return {**table, "optimizer": {"learning_rate": T5_MUON, **optimizer}}

    @model_validator(mode="after")
    def _adapts_something(self) -> Run:
        if self.lora is not None and self.init is None:
            raise ValueError('[lora] adapts a model that was trained before; say which with init = "FOLDER"')
        return self

    def identity(self, version: str) -> str:
        """32 hexadecimal characters over all that decides what is learnt, and the version it is learnt from."""
        left_out = {"name", "size", "parallel", "evaluation", "checkpoint", "samples", "log"}
        table = self.model_dump(mode="json", exclude=left_out)
        table["batch"] = {"rows": self.batch.rows}
        if (init := table.pop("init")) is not None:
            table["init"] = init["weights"]  # wherever they lay
        if not self.mix:
            table.pop("mix")
        if self.lora is None:
            table.pop("lora")
        table["precision"] = {"compute": self.precision.compute}
        return digest({"run": table, "version": version})


def load(path: str | Path, changes: Sequence[str] = ()) -> Run:
    """Read a run file, with `changes` like 'schedule.steps=50' made to it. Raises TrainingError."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        fix = "give the path of a .toml; shipped ones lie in catalogs/runs"
        raise TrainingError(f"{path}: no such run file: {error.strerror}; {fix}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not valid TOML: {error}") from error
    for change in changes:
        table = _changed(table, change)
    if "init" in table:
        from training import initial  # which reads runs, and they run files

        table = initial.resolved(table, str(path))
    return check(Run, table, str(path))


def _changed(table: Mapping[str, Any], change: str) -> dict[str, Any]:
    """A copy of the table with one `a.b=VALUE`; VALUE is TOML, or else a plain string."""
    name, equals, text = change.partition("=")
    if not equals or not all(name.split(".")):
        raise TrainingError(f"--set {change}: write it like schedule.steps=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    whole: dict[str, Any] = dict(table)
    inner = whole
    *outer, last = name.split(".")
    for part in outer:
        found = inner.get(part, {})
        if not isinstance(found, dict):
            raise TrainingError(f"--set {change}: {part!r} is a value, not a table")
        inner[part] = inner = dict(found)
    inner[last] = value
    return whole
