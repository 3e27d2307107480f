"""Data sets of the Hugging Face Hub, or of what answers like it under $HF_ENDPOINT: files of a pinned revision, read as
kind `files` reads them. A document's path is that in the repository, its number as of kind `files`. Parameters:

    dataset             "owner/name"
    revision            the commit, 40 hexadecimal digits: a branch moves, and is refused with the commit that it is at
    subset, split       which of the files, as the repository's card says (`configs`), or else as `datasets` tells
                        splits by the files' names; a split may be several: ["train", "test"]
    files               globs of files in the repository, instead of subset and split
    streaming           read over the net, twice, and keep nothing; else files are downloaded once, into the Hub's cache
    columns, meta, maximum_row_bytes   as of kind `files`
    chat                instead of columns: how rows tell conversations, by the parameters of kind `chat`:
                        {prompt = ["instruction", "input"], response = "output"}
    items               instead of both: how rows ask, by the parameters of kind `items`:
                        {query = "{question}", choices = "choices.text", gold = "answerKey", golds = "choices.label"}

A data set that needs code to run is refused: nothing that is downloaded is ever run. The token of `hf auth login` is
sent to the Hub, and to nobody that it redirects to.

The law: what is read depends on the revision alone. The number that matters: none, the lines of code that are trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.sources import ATOM_BYTES, Chunk, Collector, Item, SourceError
from pipeline.sources import files as file_kind
from pipeline.sources._rows import Column, Mapped
from pipeline.sources._stores import Remote
from pipeline.sources.chat import Form, talking
from pipeline.sources.items import Asked, asking
from pipeline.stage import ConfigError, suggest

COMMIT = re.compile("[0-9a-f]{40}")
TIMEOUT = 30


def survey(
    *,
    dataset: str,
    revision: str,
    subset: str = "default",
    split: str | list[str] = "train",
    files: list[str] | None = None,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    chat: Form | None = None,
    items: Asked | None = None,
    streaming: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Item]:
    """The items of the chosen files, by their paths in the repository. Raises SourceError in one sentence."""
    info = _info(dataset, revision)
    names = sorted(sibling.rfilename for sibling in info.siblings or [])
    _refuse_code(dataset, names)
    chosen = _matching(names, files) if files else _split(dataset, info, names, subset, split)
    if not chosen:
        raise SourceError(f"{dataset}: no file is like {', '.join(files or [])}; has: {', '.join(names[:20])}")
    mapped = _mapped(meta, columns, chat, items)
    for name in sorted(chosen):
        yield from file_kind.items(name, _place(dataset, revision, name, streaming), mapped, ATOM_BYTES)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    dataset: str,
    revision: str,
    subset: str = "default",
    split: str | list[str] = "train",
    files: list[str] | None = None,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    chat: Form | None = None,
    items: Asked | None = None,
    streaming: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Chunk]:
    """Documents and rejects of one item. Raises SourceError for a file that is damaged or changed."""
    mapped = _mapped(meta, columns, chat, items)
    yield from file_kind.chunks(item, mapped, Collector(source, item.path, licence), _private(), maximum_row_bytes)


def _mapped(
    meta: list[str] | None, columns: dict[Column, str] | None, chat: Form | None, items: Asked | None
) -> Mapped:
    """Raises ConfigError where a row would be told in two ways."""
    given = [name for name, said in (("columns", columns), ("chat", chat), ("items", items)) if said is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: each says what a row becomes; leave one of them out")
    if items is not None:
        return asking(meta, **items)
    return Mapped.of(columns, meta) if chat is None else talking(meta, **chat)


def endpoint() -> str:
    """The Hub that is asked."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _private() -> bool:
    """Whether addresses that are not public are in order: where the user names a Hub, which may be in the house."""
    return "HF_ENDPOINT" in os.environ


def _info(dataset: str, revision: str) -> Any:
    """What the Hub says of a data set at a commit."""
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise SourceError("kind 'hub' needs huggingface_hub: pip install 'gristmill[hub]'") from error
    try:
        info = HfApi(endpoint=endpoint()).dataset_info(dataset, revision=revision, timeout=TIMEOUT)
    except GatedRepoError as error:
        raise SourceError(f"{dataset}: its owner wants to be asked first: {endpoint()}/datasets/{dataset}") from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{dataset}: the Hub has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise SourceError(f"{dataset}: no such data set on {endpoint()}, or none that this token may see") from error
    except Exception as error:  # whatever the client's transport raises
        raise _unreachable(error) from error
    if not COMMIT.fullmatch(revision):
        raise SourceError(f'{dataset}: {revision!r} moves; pin what it is now: revision = "{info.sha}"')
    return info


def _unreachable(error: Exception) -> SourceError:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return SourceError(
        f"the Hub at {endpoint()} cannot be reached ({said}); set HF_ENDPOINT to one that can, or download the files "
        'elsewhere and read them with kind = "files"'
    )


def _refuse_code(dataset: str, names: list[str]) -> None:
    script = f"{dataset.rpartition('/')[2]}.py"
    if script in names:
        raise SourceError(
            f"{dataset} needs its own code, {script}, to run: refused; take a revision with data files (many have one "
            "under refs/convert/parquet), or name data files by `files`"
        )


def _split(dataset: str, info: Any, names: list[str], subset: str, split: str | list[str]) -> list[str]:
    """The files of a subset's splits."""
    from datasets.data_files import _get_data_files_patterns, sanitize_patterns

    configs = {config.get("config_name", "default"): config for config in _configs(info)}
    try:
        if configs:
            if subset not in configs and subset == "default":
                subset = next((name for name, config in configs.items() if config.get("default")), subset)
            if subset not in configs:
                raise SourceError(f"{dataset}: no subset {subset!r}{suggest(subset, configs)}")
            config = configs[subset]
            root = f"{config['data_dir'].strip('/')}/" if config.get("data_dir") else ""
            within = [name.removeprefix(root) for name in names if name.startswith(root)]
            stated = config.get("data_files")
            patterns = sanitize_patterns(stated) if stated else _get_data_files_patterns(_resolver(within))
        elif subset == "default":
            root, within = "", names
            patterns = _get_data_files_patterns(_resolver(names))
        else:
            raise SourceError(f"{dataset}: no subset {subset!r}; it has but one, default")
    except (FileNotFoundError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{dataset}: its files cannot be told apart ({error}); name them by `files`") from error
    chosen = []
    for name in [split] if isinstance(split, str) else split:
        if name not in patterns:
            raise SourceError(f"{dataset}: no split {name!r} in subset {subset!r}{suggest(name, patterns)}")
        found = _globbed(within, patterns[name])
        if not found:
            raise SourceError(f"{dataset}: split {name!r} has no file like {', '.join(map(str, patterns[name]))}")
        chosen += [root + name for name in found]
    return list(dict.fromkeys(chosen))


def _configs(info: Any) -> list[dict[str, Any]]:
    card = info.card_data.to_dict() if info.card_data else {}
    found = card.get("configs") or []
    return [config for config in found if isinstance(config, dict)]


def _resolver(names: list[str]) -> Any:
    """What `datasets` asks for the files of a pattern: FileNotFoundError where there is none."""

    def resolve(pattern: str) -> list[str]:
        if not (found := _globbed(names, [pattern])):
            raise FileNotFoundError(pattern)
        return found

    return resolve


def _globbed(names: list[str], patterns: list[str]) -> list[str]:
    """Data files of names that a pattern of the Hub finds: `**` goes through folders; hidden files are none."""
    from fsspec.utils import glob_translate

    found = [re.compile(glob_translate(str(pattern).removeprefix("./"))) for pattern in patterns]
    data = [name for name in names if not any(part[:1] in (".", "_") for part in name.split("/"))]
    data = [name for name in data if name not in ("README.md", "dataset_infos.json", "dataset_info.json", "LICENSE")]
    return [name for name in data if any(pattern.match(name) for pattern in found)]


def _matching(names: list[str], patterns: list[str]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _place(dataset: str, revision: str, name: str, streaming: bool) -> Path | Remote:
    if streaming:
        return Remote(f"{endpoint()}/datasets/{dataset}/resolve/{revision}/{quote(name)}", _private())
    from huggingface_hub import hf_hub_download

    try:
        found = hf_hub_download(dataset, name, repo_type="dataset", revision=revision, endpoint=endpoint())
    except Exception as error:  # whatever the client's transport raises
        raise _unreachable(error) from error
    return Path(found)
