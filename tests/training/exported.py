"""Small models with a tokenizer, as Hugging Face folders: what `generate` and `serve` are tried on."""

from __future__ import annotations

from pathlib import Path

from tests.training.small_models import TABLES, decoder, enlarged
from tests.training.versions import EOT, train_tokenizer
from training import export, models

TEXTS = ["The mill wheel turns.", "磨坊在河边。小麦变成面粉！", "the wheel of the mill and the flour " * 9, "naïve 😀"]
FORMS = {
    "qwen3": TABLES["grouped"],
    "llama": TABLES["llama"],
    "gpt2": TABLES["gpt2"],
    "t5": {"family": "t5", "layers": 2, "width": 48, "heads": 3},
}


def folder(place: Path, form: str, *, length: int = 128, vocab_size: int = 400) -> Path:
    """An export of a model of this form whose weights are not near zero."""
    place.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(TEXTS, vocab_size)
    tokenizer.save(str(place / "tokenizer.json"))
    table, size = FORMS[form], tokenizer.get_vocab_size()
    if form == "t5":
        model = models.build(table, vocab_size=size, length=length, where="[model]")
        model.initialise(1)
        model = enlarged(model, 1, 1.3)
    else:
        model = decoder(table, vocab_size=size, length=length, scale=3)
    eot = tokenizer.token_to_id(EOT)
    export.export(model, tokenizer_file=place / "tokenizer.json", eot=eot, length=length, folder=place / form)
    return place / form
