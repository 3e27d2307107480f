"""Messages as the text that a model was tuned on, by the Jinja template of its tokenizer, as `transformers` renders it.

A template is a program of whoever published the model: it runs in Jinja's sandbox, which reaches nothing outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from training import TrainingError


def rendered(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str]) -> str:
    """The text of a chat, up to where the answer begins. Raises TrainingError where the template refuses it."""
    try:
        return _compiled(template).render(messages=list(messages), add_generation_prompt=True, **special)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise TrainingError(f"the chat template cannot take these messages: {error}") from error


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _json
    return environment.from_string(template)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
