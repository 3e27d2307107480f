"""Classifiers as `transformers` knows them: a family's tensors and config, with the head of sequence classification.

It offers what a family's file offers. A batch of texts of several lengths has to be padded there, and GPT and T5 look
for the end of a text by its last token: so the folder has one token more, PADDING, whose embedding is zero and which
no text holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training import TrainingError, hugging_face
from training.classifier import Classifier
from training.hugging_face import bert
from training.hugging_face._config import refuse

PADDING = "<|pad|>"


class Form(NamedTuple):
    """How a class of `transformers` names the embedding and the modules of its head, what it puts before the
    backbone's tensors, and the `classifier_pooling` of its config.json, where there are several."""

    architecture: str
    embedding: str
    modules: dict[str, str]
    prefix: str = ""
    pooling: str | None = None


FORMS = {
    "qwen3": Form("Qwen3ForSequenceClassification", "model.embed_tokens.weight", {"head": "score"}),
    "llama": Form("LlamaForSequenceClassification", "model.embed_tokens.weight", {"head": "score"}),
    "gpt2": Form("GPT2ForSequenceClassification", "transformer.wte.weight", {"head": "score"}),
    "bert": Form(
        "BertForSequenceClassification",
        "bert.embeddings.word_embeddings.weight",
        {"pooler": "bert.pooler.dense", "head": "classifier"},
    ),
    "modernbert": Form(
        "ModernBertForSequenceClassification",
        "model.embeddings.tok_embeddings.weight",
        {"pooler.dense": "head.dense", "pooler.norm": "head.norm", "head": "classifier"},
        pooling="mean",
    ),
    "t5": Form(
        "T5ForSequenceClassification",
        "shared.weight",
        {"pooler": "classification_head.dense", "head": "classification_head.out_proj"},
        "transformer.",
    ),
}


def config(model: Classifier, *, eot: int, length: int) -> dict[str, Any]:
    """config.json of the class; `length` is the longest context in tokens."""
    whole: dict[str, Any] = hugging_face.of_model(model.backbone).config(model.backbone, eot=eot, length=length)
    return {
        **whole,
        "architectures": [FORMS[whole["model_type"]].architecture],
        "vocab_size": model.vocab_size + 1,
        "pad_token_id": model.vocab_size,
        "id2label": {str(number): label for number, label in enumerate(model.labels)},
        "label2id": {label: number for number, label in enumerate(model.labels)},
        "problem_type": "single_label_classification",
    }


def theirs(model: Classifier) -> dict[str, Tensor]:
    """Parameters under their names, float32 on the CPU, the embedding one row longer."""
    family = hugging_face.of_model(model.backbone)
    form = FORMS[family.config(model.backbone, eot=model.eot, length=model.length)["model_type"]]
    known = {form.prefix + name: tensor for name, tensor in family.theirs(model.backbone).items()}
    embedding = form.prefix + form.embedding
    known[embedding] = torch.cat([known[embedding], torch.zeros_like(known[embedding][:1])])
    mine = {name: parameter.detach().float().cpu().contiguous() for name, parameter in model.on_top().items()}
    return known | {_named(name, form.modules): tensor for name, tensor in mine.items()}


def reads(config: Mapping[str, Any]) -> Form | None:
    """The form of a config.json that is a classifier's. Raises TrainingError where it asks another state than ours."""
    form = FORMS.get(str(config.get("model_type")))
    if form is None or config.get("architectures") != [form.architecture]:
        return None
    if form.pooling:
        refuse({"classifier_pooling": "cls", **config}, {"classifier_pooling": (form.pooling,)})
    return form


def labels(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes, by number."""
    return [label for _, label in sorted((int(number), label) for number, label in config.get("id2label", {}).items())]


def backbone(form: Form, family: ModuleType, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's tensors of a classifier under our names. Raises TrainingError for a name that it has not."""
    rest = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[0] not in form.modules.values()}
    if strange := [name for name in rest if not name.startswith(form.prefix)]:
        raise TrainingError(f"{strange[0]!r} is no tensor of a {form.architecture}")
    found: dict[str, Tensor] = family.ours({name.removeprefix(form.prefix): tensor for name, tensor in rest.items()})
    return found


def on_top(kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the tensors of a `model_type` hold of a classifier's head under our names: a BERT of another head may have
    a pooler, and a BertModel's is called so without `bert.` before it."""
    names = {theirs: ours for ours, theirs in FORMS[kind].modules.items()} if kind in FORMS else {}
    names |= {theirs.removeprefix(bert.PREFIX): ours for theirs, ours in names.items()}
    return {_named(name, names): t for name, t in tensors.items() if name.rpartition(".")[0] in names}


def _named(name: str, modules: Mapping[str, str]) -> str:
    module, _, kind = name.rpartition(".")
    return f"{modules[module]}.{kind}"
