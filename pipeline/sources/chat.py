"""Conversations: messages of a system, a user and an assistant, or a prompt with its response.

They lie in files of every form that `files` reads whose rows have columns (JSON lines, Parquet, Arrow, .csv, .tsv), and
become documents: `text` holds what is said to the assistant, a system's message first where there is one, and `target`
its answers; between two turns of either stands schema.TURN, which packing makes the end-of-text token. Parameters,
beside `paths`, `private_addresses` and `maximum_row_bytes` of `files` (all but `meta` make up the table `chat` of kind
`hub`, too):

    messages        column that holds the list of messages; by default "messages"
    role, content   keys of a message; by default "role" and "content"
    roles           what roles are called there: {human = "user", gpt = "assistant"}
    prompt          instead of messages: columns whose texts, an empty line between, are what the user says; the first
                    must say something, later ones may be empty or absent: ["instruction", "input"]
    response        with prompt: column of the answer; by default "response"
    system          with prompt: column of the system's message, which may be empty or absent
    meta            columns to keep in `meta`

The law: a row is a conversation, user and assistant in turn, or says why it is none: no answer, an empty message, a
role that nobody knows, a system's message behind others, two turns of one role, a message that spells TURN. Nothing of
a message is trimmed or changed. What follows the last answer is left out, and `meta` says so (unanswered).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from pipeline.schema import TURN
from pipeline.sources import ATOM_BYTES, Chunk, Collector, Item, files
from pipeline.sources._rows import Mapped, RowError, _meta
from pipeline.stage import ConfigError

Role = Literal["system", "user", "assistant"]
KNOWN = ("system", "user", "assistant")


@with_config(ConfigDict(extra="forbid", strict=True))
class Form(TypedDict, total=False):
    """How the rows of a data set tell conversations: the parameters of this kind that are about a row."""

    messages: str
    role: str
    content: str
    roles: dict[str, Role]
    prompt: list[str]
    response: str
    system: str


class Message(NamedTuple):
    """What one side says."""

    role: str
    content: str


@dataclass(frozen=True)
class Talking(Mapped):
    """How a row becomes a conversation; reads only the columns that it names."""

    messages: str = "messages"
    role: str = "role"
    content: str = "content"
    roles: tuple[tuple[str, str], ...] = ()
    prompt: tuple[str, ...] = ()
    response: str = ""
    system: str = ""

    @property
    def required(self) -> list[str]:
        return [self.prompt[0], self.response] if self.prompt else [self.messages]

    @property
    def wanted(self) -> list[str]:
        named = [*self.prompt, self.response, self.system] if self.prompt else [self.messages]
        return [*dict.fromkeys(name for name in [*named, *self.meta] if name)]

    def document(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of DOCUMENT that a row gives. Raises RowError."""
        found = self._pair(row) if self.prompt else self._listed(row)
        _check(found)
        last = max(number for number, message in enumerate(found) if message.role == "assistant")
        kept, unanswered = found[: last + 1], last + 1 < len(found)
        kept_meta = {name: row.get(name) for name in self.meta}
        return {
            "text": TURN.join(message.content for message in kept if message.role != "assistant"),
            "target": TURN.join(message.content for message in kept if message.role == "assistant"),
            "label": None,
            "url": None,
            "licence": None,
            "meta": _meta({**kept_meta, "unanswered": unanswered or None}),
        }

    def _pair(self, row: Mapping[str, Any]) -> list[Message]:
        texts = [_text(row, name, must=number == 0) for number, name in enumerate(self.prompt)]
        said = "\n\n".join(text for text in texts if text)
        system = _text(row, self.system, must=False) if self.system else ""
        found = [Message("user", said), Message("assistant", _text(row, self.response, must=True))]
        return [Message("system", system), *found] if system else found

    def _listed(self, row: Mapping[str, Any]) -> list[Message]:
        listed, names = row.get(self.messages), dict(self.roles)
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise RowError("no_messages", f"{self.messages!r} is no list of messages")
        found = []
        for number, each in enumerate(listed):
            role, content = each.get(self.role), each.get(self.content)
            role = names.get(str(role), role)
            if role not in KNOWN:
                raise RowError("unknown_role", f"message {number} is of {role!r}, none of {', '.join(KNOWN)}")
            if not isinstance(content, str):
                raise RowError("message_not_a_string", f"the {self.content!r} of message {number} is no string")
            found.append(Message(role, content))
        return found


def _text(row: Mapping[str, Any], name: str, *, must: bool) -> str:
    value = row.get(name)
    if value is None and not must:
        return ""
    if not isinstance(value, str):
        raise RowError("message_not_a_string", f"{name!r} is no string")
    return value


def _check(found: Sequence[Message]) -> None:
    """Raises RowError where the messages are no conversation."""
    if not any(message.role == "assistant" for message in found):
        raise RowError("no_answer", "no message is the assistant's")
    before = "nobody"
    for number, (role, content) in enumerate(found):
        if role == "system" and number:
            raise RowError("system_not_first", f"message {number} is the system's; only the first may be")
        if role == before or (role == "assistant" and before != "user"):
            raise RowError("not_in_turn", f"message {number} is of {role!r}, after {before!r}")
        if not content.strip():
            raise RowError("empty_message", f"message {number} is empty")
        if TURN in content:
            raise RowError("spells_end_of_text", f"message {number} holds {TURN!r}, which parts turns")
        try:
            content.encode()
        except UnicodeEncodeError as error:
            raise RowError("lone_surrogate", f"no Unicode text at character {error.start}") from error
        before = role


def talking(
    meta: Sequence[str] | None,
    messages: str | None = None,
    role: str = "role",
    content: str = "content",
    roles: Mapping[str, Role] | None = None,
    prompt: Sequence[str] | None = None,
    response: str | None = None,
    system: str | None = None,
) -> Talking:
    """How rows are told by a `Form`. Raises ConfigError for what does not go together."""
    if prompt is None and (response or system):
        raise ConfigError("response and system stand beside prompt; give its columns, or messages alone")
    if prompt is not None and (messages is not None or not prompt):
        raise ConfigError("prompt names one column at the least, and stands instead of messages")
    return Talking(
        {},
        tuple(meta or ()),
        messages or "messages",
        role,
        content,
        tuple((roles or {}).items()),
        tuple(prompt or ()),
        response or "response",
        system or "",
    )


def survey(
    *,
    paths: list[str],
    messages: str | None = None,
    role: str = "role",
    content: str = "content",
    roles: dict[str, Role] | None = None,
    prompt: list[str] | None = None,
    response: str | None = None,
    system: str | None = None,
    meta: list[str] | None = None,
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Item]:
    """Every file that the globs match, as `files` cuts them. Raises SourceError as it does."""
    told = talking(meta, messages, role, content, roles, prompt, response, system)
    for logical, path in files.found(paths, private_addresses):
        yield from files.items(logical, path, told, ATOM_BYTES)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    messages: str | None = None,
    role: str = "role",
    content: str = "content",
    roles: dict[str, Role] | None = None,
    prompt: list[str] | None = None,
    response: str | None = None,
    system: str | None = None,
    meta: list[str] | None = None,
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Chunk]:
    """Conversations and rejects of one file or part. Raises SourceError for a damaged file or one that changed."""
    told = talking(meta, messages, role, content, roles, prompt, response, system)
    yield from files.chunks(item, told, Collector(source, item.path, licence), private_addresses, maximum_row_bytes)
