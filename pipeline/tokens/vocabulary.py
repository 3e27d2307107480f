"""The vocabulary: a byte-level BPE trained on a declared sample, or a tokenizer.json that is given.

Documents enter the sample by the hash of their ids until its size is reached, so the same
kept documents give the same tokenizer whatever the order, partitions or workers, and
children change none. Text that spells a special token is encoded as text, never as the token itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.stage import ConfigError

PARALLEL = "TOKENIZERS_PARALLELISM"
END_OF_TEXT = "<|endoftext|>"
# What ends a document, the first that a tokenizer has: of GPT-2 and Qwen, Llama 3, T5 and Llama 2, BERT.
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "[SEP]")


def choose(doc_ids: Sequence[str], sizes: Sequence[int], budget: int, seed: int) -> list[int]:
    """Positions of the documents in the sample: in order of the hash of (seed, doc_id), up to `budget` bytes."""
    order = sorted(range(len(doc_ids)), key=lambda i: _point(seed, doc_ids[i]))
    chosen, used = [], 0
    for position in order:
        if used + sizes[position] > budget:
            break
        chosen.append(position)
        used += sizes[position]
    return chosen or order[:1]


def _point(seed: int, doc_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()


def train(texts: Iterable[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al. 2016; GPT-2's pre-tokenizer) of at most `vocab_size` entries, of texts as
    they stand or in lower case."""
    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with _every_core():
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@contextlib.contextmanager
def _every_core() -> Iterator[None]:
    """Training is alone, also in a worker, whose other tasks share the cores with its neighbours."""
    before = os.environ.pop(PARALLEL, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[PARALLEL] = before


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json. Raises ConfigError where it is none, has no end-of-text token or leaves ids out."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception for a missing file as for a broken one
        raise ConfigError(f"{path}: not a tokenizer.json: {error}") from error
    try:
        end = tokenizer.id_to_token(end_of_text(tokenizer))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    if sorted(ids) != list(range(len(ids))):
        raise ConfigError(f"{path}: its {len(ids)} ids run to {max(ids)}; they must be 0, 1, 2, ... without a gap")
    # Text that spells one is text, also where the file does not call it special.
    tokenizer.add_special_tokens([tokenizer.id_to_token(start_of_text(tokenizer)), end])
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text(tokenizer: Tokenizer) -> int:
    """Id of the token that ends every document."""
    for name in ENDS:
        found: int | None = tokenizer.token_to_id(name)
        if found is not None:
            return found
    raise ConfigError(f"the tokenizer has none of {', '.join(ENDS)}: one of them ends every document")


def start_of_text(tokenizer: Tokenizer) -> int:
    """Id of the token that begins every document: what the tokenizer's own template puts before a text, as models that
    were trained with it know texts ([CLS] of BERT, <|begin_of_text|> of Llama 3); end-of-text where it puts nothing."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=around).ids for around in (False, True))
    return end_of_text(tokenizer) if whole[:1] == bare[:1] else int(whole[0])


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Each text as [start-of-text] + tokens + [end-of-text]."""
    start, end = [start_of_text(tokenizer)], [end_of_text(tokenizer)]
    return [start + found.ids + end for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def token_type(vocab_size: int) -> pa.DataType:
    """The type of the ids of a vocabulary of this size."""
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()
