"""A small input of kind `latex`: papers as arXiv gives them, a bulk file of such, and what is no paper."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from tests.laws.kinds.archive import tarred

SITE = None
MAIN = r"""\documentclass{article} % of last year
\newcommand{\mill}{water mill}
\title{On {\em Mills}}
\begin{document}
\maketitle
\begin{abstract}We grind.\end{abstract}
\section{Introduction}
The \mill{} turns at 50\,\% of $\omega_0$.
% a secret
\input{parts/wheel}
\begin{thebibliography}{9}\bibitem{a} A. Miller.\end{thebibliography}
\end{document}
"""
WHEEL = r"The wheel of the \mill\ has $n = 12$ paddles."


def paper(text: str = MAIN) -> bytes:
    files = {"ms.tex": text.encode(), "parts/wheel.tex": WHEEL.encode(), "fig.eps": b"%!PS", "old.bbl": b"x"}
    return gzip.compress(tarred(files), mtime=0)


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    plain = MAIN.replace(r"\input{parts/wheel}", "").encode()
    (folder / "2401.00001.gz").write_bytes(paper())
    (folder / "2401.00002.gz").write_bytes(gzip.compress(plain, mtime=0))
    (folder / "alone.tex").write_bytes(plain)
    (folder / "broken.tar.gz").write_bytes(paper()[:200])
    (folder / "pdf.gz").write_bytes(gzip.compress(b"%PDF-1.5"))
    papers = {"2401/2401.00003.gz": paper(), "2401/2401.00004.pdf": b"%PDF", "2401/hep-th9901001.gz": paper()}
    (folder / "deep" / "arXiv_src_2401_001.tar").write_bytes(tarred(papers))
    return {"params": {"paths": [f"{folder}/**/*"]}, "rows": 5 + 3, "rejects": 2 + 1, "cut": ()}


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "alone.tex"
    path.write_bytes(path.read_bytes().replace(b"turns", b"terns"))
