"""A text while it is written: what was said is never taken back, and the end is what a tokenizer decodes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria

from tests.training.exported import TEXTS
from tests.training.versions import EOT, train_tokenizer
from training.streaming import Stream

TOKENIZER = train_tokenizer(TEXTS, 400)
SIZE = TOKENIZER.get_vocab_size()
EOT_ID = TOKENIZER.token_to_id(EOT)
HOSTILE = ["鎧磨坊 😀 turns", "e\u0301 \u202eabc \x1b[31m \x00", "\U0001f469\u200d\U0001f467", "鎧  two  spaces\r\n"]


def said(tokens, tokenizer=TOKENIZER, before=(), **options):
    """The pieces that a stream says, the last of them at the end."""
    stream, pieces = Stream(tokenizer, before, **options), []
    for token in tokens:
        stopped = stream.add(token)
        pieces.append(stream.fresh())
        if stopped:
            break
    pieces.append(stream.finish())
    assert "".join(pieces) == stream.text
    return pieces


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, SIZE - 1), max_size=40))
def test_any_tokens_are_what_the_tokenizer_decodes(tokens):
    """Half characters and bytes that are none included, wherever they stand."""
    assert "".join(said(tokens)) == TOKENIZER.decode(tokens)
    assert "".join(said(tokens, special=True)) == TOKENIZER.decode(tokens, skip_special_tokens=False)
    kept = [token for token in tokens if token != EOT_ID]
    assert "".join(said(tokens, special=True, ends={EOT_ID})) == TOKENIZER.decode(kept)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_piece_holds_half_a_character(text):
    tokens = TOKENIZER.encode(text).ids
    assert any("\ufffd" in TOKENIZER.decode([token]) for token in tokens)
    pieces = said(tokens)
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)
    assert pieces[-1] == "" and sum(map(bool, pieces)) > 2, "all of it is said before the end"


def test_half_a_character_at_the_end_is_said_at_the_end_alone():
    *whole, half = TOKENIZER.encode("a鎧").ids
    pieces = said(whole)
    assert pieces[-1] == "\ufffd" and "\ufffd" not in "".join(pieces[:-1])
    assert "".join(said([*whole, half])) == "a鎧"


def test_bytes_that_are_no_characters_are_said_while_they_come():
    """All but the last, which may still become one; where they are judged in a row, none before the row ends."""
    [byte] = TOKENIZER.encode("鎧").ids[:1]
    assert [len(piece) for piece in said([byte] * 6)] == [0, 1, 1, 1, 1, 1, 1]
    names = {"<unk>": 0, "a": 1, **{f"<0x{n:02X}>": n + 2 for n in range(256)}}
    fallback = Tokenizer(tokenizer_models.BPE(names, [], unk_token="<unk>", byte_fallback=True))
    fallback.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokens = [1, *(n + 2 for n in "鎧".encode()), 1, 0xE9 + 2, 0x8E + 2, 1]
    assert said(tokens, fallback) == ["a", "", "", "鎧", "a", "", "", "\ufffd\ufffda", ""]


def test_a_space_that_a_decoder_writes_between_words_alone_is_said():
    words = {"<unk>": 0, "▁the": 1, "▁mill": 2, "er": 3}
    tokenizer = Tokenizer(tokenizer_models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    assert tokenizer.decode([2, 3]) == "miller"
    assert said([2, 3, 2], tokenizer, before=[1]) == [" mill", "er", " mill", ""]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_text_ends_before_the_first_stop_string_and_no_piece_has_any_of_it(data):
    tokens = data.draw(st.lists(st.sampled_from(TOKENIZER.encode("aab ba bb the mill 磨坊").ids), max_size=40))
    stops = data.draw(st.lists(st.text("ab 磨", min_size=1, max_size=4), min_size=1, max_size=3))
    whole = TOKENIZER.decode(tokens)
    places = [whole.find(stop) for stop in stops if stop in whole]
    pieces = said(tokens, stops=stops)
    if "\ufffd" not in whole:
        assert "".join(pieces) == (whole[: min(places)] if places else whole)
    assert not any(stop in "".join(pieces) for stop in stops)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(TOKENIZER.encode("aab ba bb the mill turns").ids), min_size=1, max_size=30))
def test_it_stops_at_the_token_at_which_transformers_stops(tokens):
    theirs = StopStringCriteria(PreTrainedTokenizerFast(tokenizer_object=TOKENIZER), ["ba", "l t", "bb"])
    expected = next(
        (n for n in range(1, len(tokens) + 1) if bool(theirs(torch.tensor([tokens[:n]]), None)[0])), len(tokens)
    )
    assert len(said(tokens, stops=["ba", "l t", "bb"])) - 1 == expected
