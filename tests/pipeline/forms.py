"""The pre-tokenizers that the kernel knows, as `tokenizers` has them, and pieces of text that part them."""

from __future__ import annotations

from tokenizers import Regex, pre_tokenizers

from pipeline.kernels.pretokens import DIGITS, GPT2

GPT4, QWEN = list(DIGITS)[1:]
FORMS = {"byte-level": None, "gpt2": GPT2, "gpt4": GPT4, "qwen": QWEN}
PIECES = [
    *("'", "s", "S", "ſ", "'re", "'LL", "'Ve", "I'd've", "1", "12345", "²", "Ⅷ", "٣", "...", "-", "a", "a", "…", "“x”"),
    *(" ", "  ", "\t", "\n", "\r", "\r\n", "\n \n", " \n", "\u00a0", "\u3000", "\x85", "\u1680", "\u180e", "\ufeff"),
    *(
        "\x00",
        "\x1c",
        "\x7f",
        "\u2028",
        "\u2029",
        "\u200d",
        "\ufffd",
        "磨坊",
        "水",
        "、",
        "，",
        "〇",
        "가",
        "\U00020000",
    ),
    *("é", "e\u0301", "ǅ", "\u0b95\u0bbf", "ガ", "カ\u3099", "กำ", "\U0001f469", "\U0001f469\u200d\U0001f33e"),
    *(
        "가",
        "\U00020000",
        "\U0001f1f3\U0001f1f1",
        "1\ufe0f\u20e3",
        "❤\ufe0f",
        "\U000e0067",
        "the mill",
        "wheel",
        "turns",
    ),
    *("<|endoftext|>", "<|"),
]


def pre_tokenizer(form: str, prefix: bool = False) -> pre_tokenizers.PreTokenizer:
    expression = FORMS[form]
    if expression is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
