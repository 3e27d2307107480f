"""What may be asked of the server: the bodies of the OpenAI API, with what is not offered refused by name.

A key that nobody knows is refused, so that no typing error becomes a default. Beside those of OpenAI there are `top_k`,
`min_p` and `repetition_penalty`, by the names that vLLM gives them (`extra_body` of the client).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Body = TypeVar("Body", bound=BaseModel)
Count = Annotated[int, Field(ge=1)]
Tokens = list[Annotated[int, Field(ge=0)]]
ABSENT = {"best_of", "frequency_penalty", "logit_bias", "logprobs", "presence_penalty", "suffix"}  # not offered
Zero = Annotated[float, Field(ge=0, le=0)] | None
Stop = str | Annotated[list[str], Field(max_length=16)] | None


class Refusal(Exception):
    """An error of the OpenAI API: status, message, and what is wrong where."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class Asking(BaseModel):
    """What completions and chats have in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    top_k: int | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    stop: Stop = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = False
    stream_options: Options | None = None
    # Known, and nothing changes by them.
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    # Known, and offered in this form alone.
    presence_penalty: Zero = 0
    frequency_penalty: Zero = 0
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class Completion(Asking):
    """POST /v1/completions."""

    prompt: str | list[str] | Tokens | list[Tokens]
    max_tokens: Count | None = 16
    echo: bool | None = False
    best_of: Literal[1] | None = None
    logprobs: Literal[None] = None
    suffix: Literal[None, ""] = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, a text or its tokens."""
        given: Any = self.prompt
        return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str | list[Part]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """As templates know a message."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text, **({"name": self.name} if self.name else {})}


class Chat(Asking):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: Literal[False] | None = None


class Classify(BaseModel):
    """POST /v1/classify, as vLLM has it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)]
    user: Any = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


def read(kind: type[Body], body: bytes) -> Body:
    """A checked body. Raises Refusal naming the key."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(kind, error.errors()) from None


def _refusal(kind: type[BaseModel], errors: Sequence[Any]) -> Refusal:
    first = errors[0]
    if first["type"] == "json_invalid":
        return Refusal(400, f"The body is not JSON: {first['ctx']['error']}", code="invalid_json")
    place = [str(part) for part in first["loc"]]
    if not place:
        return Refusal(400, "The body is no JSON object", code="invalid_json")
    if first["type"] == "extra_forbidden" and len(place) == 1:
        known = ", ".join(sorted(kind.model_fields))
        return Refusal(400, f"Unknown parameter '{place[0]}'; known are: {known}", param=place[0], code="unknown")
    if first["type"] == "missing":
        where = ".".join(place)
        return Refusal(400, f"Missing parameter '{where}'", param=where, code="missing_required_parameter")
    if place[0] in ABSENT:
        return Refusal(
            400, f"Parameter '{place[0]}' is not offered here; leave it out", param=place[0], code="unsupported"
        )
    # Of a union each kind has its own error; the key is the same in all of them.
    given = repr(first["input"])
    said = first["msg"] if len({error["loc"][0] for error in errors}) == len(errors) else "is of the wrong kind"
    if len(given) < 100:
        said = f"{said} (got {given})"
    return Refusal(400, f"Parameter '{place[0]}': {said}", param=place[0], code="invalid_value")
