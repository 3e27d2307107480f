"""croissant.json: the version in Croissant 1.1, MLCommons' vocabulary for data sets (JSON-LD over schema.org).

Its records are the documents: a row of the document index each, which `mlcroissant` loads. Shards are listed with their
digests; Croissant has no word for Arrow files whose columns are read without a copy, so their columns are described in
the card. See https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.escaping import clean, page
from pipeline.papers.attribution import SPDX
from pipeline.papers.facts import Facts, identifiers

CONFORMS = "http://mlcommons.org/croissant/1.1"
_OWN = """
    arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format
    includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace
    samplingRate separator source subField transform
"""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    **{name: f"cr:{name}" for name in _OWN.split()},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}
FIELDS = {
    "doc_id": ("sc:Text", "source, file and row: where the document comes from"),
    "source": ("sc:Text", "name of the source"),
    "language": ("sc:Text", "language that was measured or stated"),
    "licence": ("sc:Text", "SPDX expression, as the document or its source states it"),
    "url": ("sc:Text", "address of the document"),
    "parent_id": ("sc:Text", "the document that it was made from, where augmentation made it"),
    "label": ("sc:Text", "class of the document"),
    "text_bytes": ("sc:Integer", "bytes of its text in UTF-8"),
    "tokens": ("sc:Integer", "tokens of its text"),
    "split": ("sc:Text", "split that it is in"),
    "split_group": ("sc:Text", "documents with the same one are in the same split"),
}


def written(facts: Facts) -> str:
    """The file."""
    manifest = facts.manifest
    found = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": manifest["name"],
        "description": (
            f"{facts.total.documents:,} documents and {facts.total.tokens:,} tokens of {facts.address}, sealed by "
            "Gristmill. Records are the documents; the tokens are in Arrow files with the columns that README.md lists."
        ),
        # Croissant asks for a semantic version; ours is the digest of the content.
        "version": f"1.0.0+{manifest['version']}",
        "citeAs": f"{facts.address}, sealed by Gristmill from: {_titles(manifest)}",
        "license": licences(facts),
        "creator": [
            {"@type": "sc:Organization", "name": clean(source["title"]), "url": clean(source["homepage"], 2000)}
            for source in manifest["sources"]
        ],
        "url": clean(manifest["sources"][0]["homepage"], 2000),
        "inLanguage": sorted(clean(name) for name in facts.languages if name != "unknown"),
        "keywords": ["gristmill", "tokenized text"],
        "isLiveDataset": False,
        "distribution": list(_files(facts)),
        "recordSet": [_records(facts)],
    }
    return page(found)


def _titles(manifest: Mapping[str, Any]) -> str:
    return "; ".join(f"{clean(source['title'])}, {clean(source['homepage'], 2000)}" for source in manifest["sources"])


def licences(facts: Facts) -> list[str]:
    """Addresses of the licences that documents name; an identifier that SPDX does not list stays as it is."""
    own = ("licenseref-", "documentref-")
    found = [n if n.lower().startswith(own) else f"{SPDX}{n}.html" for n in identifiers(list(facts.by_licence))]
    return found or ["NOASSERTION"]


def _files(facts: Facts) -> Iterator[dict[str, Any]]:
    manifest = facts.manifest
    documents, tokenizer = manifest["documents"], manifest["tokenizer"]
    yield _file(documents["file"], documents["sha256"], "application/x-parquet", "the document index")
    yield _file(tokenizer["file"], tokenizer["sha256"], "application/json", "the tokenizer")
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            about = f"{shard['rows']} rows of split {name}"
            file = _file(shard["file"], shard["sha256"], "application/vnd.apache.arrow.file", about)
            yield {**file, "contentSize": f"{shard['bytes']} B"}


def _file(name: str, sha256: str, kind: str, about: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": about,
        "contentUrl": name,
        "encodingFormat": kind,
        "sha256": sha256,
    }


def _records(facts: Facts) -> dict[str, Any]:
    file = facts.manifest["documents"]["file"]
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"documents/{name}",
            "name": name,
            "description": about,
            "dataType": kind,
            "source": {"fileObject": {"@id": file}, "extract": {"column": name}},
        }
        for name, (kind, about) in FIELDS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "documents",
        "name": "documents",
        "description": "A record for each document of the version.",
        "key": {"@id": "documents/doc_id"},
        "field": fields,
    }
