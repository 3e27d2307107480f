"""Extending: a version with more sources, made from what is stored of the one before.

Read the rooms in this order: `checking` (what may be extended, by what), `tasks` (what a worker does: it reads the new
documents, and of the old ones ids, sketches and signals), `chain` (every output behind the new version), `operation`,
where it is one act, and `proof` (that a version only adds to another).

The law: whoever is kept in a version is kept in every version that extends it, in the same split, in the same shards.
Where a build of everything at once would keep others, each of these documents is listed with its reason
(bridges.parquet): an old document that would have lost to another through a new one, and a new one that would have won.
The number that matters: no text of an old document is read.
"""
