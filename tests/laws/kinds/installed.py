"""A small input of kind `installed`: a folder of packages of which one would leave a mark if it were imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SITE = "site"

MODULE = '''"""Grinds."""

import pathlib

pathlib.Path(__file__).with_name("imported").touch()


class Stone(object):
    """A stone."""

    def turn(self, times=1, *, fast: bool = False):
        """Turn it."""


if True:
    def outer():
        """Outside."""
        def inner():
            """Hidden."""
'''


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the packages into `folder`, which the law puts on the path alone; what the laws need to know of it."""
    modules = {f"mill/part{n}.py": f'"""Part {n} of the mill."""\n' for n in range(12)}
    modules |= {
        "mill/__init__.py": MODULE,
        "mill/silent.py": "x = 1\n",
        "mill/broken.py": '"""Ends badly."""\ndef (:\n',
        "mill/nul.py": '"""\0"""\n',
        "mill/surrogate.py": '"""\\ud800"""\n',
        "mill/latin.py": b'# coding: latin-1\n"""M\xfchle."""\n',
        "mill/unknown.py": b'"""M\xfchle."""\n',
        "mill/tests/test_mill.py": '"""A test."""\n',
    }
    _distribution(folder, "Old.Mill", modules, "License: BSD 3-Clause\nHome-page: https://example.org/mill\n")
    _distribution(folder, "gristmill", {"gristmill.py": '"""Myself."""\n'}, "License-Expression: Apache-2.0\n")
    return {
        "params": {"standard_library": False},
        "rows": 1 + 12 + 1 + 4 + 1,
        "rejects": 4,
        "cut": ("old-mill",),
    }


def _distribution(folder: Path, name: str, modules: dict[str, str | bytes], fields: str) -> None:
    for path, text in modules.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{fields}\nAbout {name}.\n")
    record = [*modules, "../../../bin/mill.py", "mill/gone.py", f"{info.name}/METADATA"]
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in record))


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "mill" / "part7.py"
    path.write_text(path.read_text().replace("Part", "Bart"))
