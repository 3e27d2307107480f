"""The one form in which a model tuned here is told a conversation: its tokens, and the Jinja template that spells them.

    <|endoftext|> user <|assistant|> answer <|endoftext|> user <|assistant|> answer <|endoftext|>
    <|system|> what holds for all of it <|endoftext|> user <|assistant|> ...

A user's text stands behind end-of-text, as a document does, and end-of-text ends an answer: so two tokens are new, and
what ends a document ends what is generated. Roles are tokens and never text: what a message says is cut into tokens by
itself, with any tokenizer. The law: `objectives.instruct`, `serve` and `apply_chat_template` of an exported tokenizer
give the same tokens for the same messages.
"""

from __future__ import annotations

SYSTEM, ASSISTANT = NAMES = ("<|system|>", "<|assistant|>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set before = 'nobody' if loop.first else loop.previtem['role'] -%}"
    "{%- if message['role'] == 'system' and loop.first -%}"
    "{{ '" + SYSTEM + "' + message['content'] }}"
    "{%- elif message['role'] == 'user' and before != 'user' -%}"
    "{{ eos_token + message['content'] }}"
    "{%- elif message['role'] == 'assistant' and before == 'user' -%}"
    "{{ '" + ASSISTANT + "' + message['content'] }}"
    "{%- else -%}"
    "{{ raise_exception(message['role'] ~ ' cannot follow ' ~ before ~ "
    "': a system message may come first, then user and assistant in turn') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if messages[-1]['role'] == 'assistant' -%}{{ eos_token }}"
    "{%- elif add_generation_prompt -%}{{ '" + ASSISTANT + "' }}"
    "{%- endif -%}"
)
