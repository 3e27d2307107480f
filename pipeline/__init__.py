"""The data half of the mill: from open corpora as they are found to a sealed version of packed shards.

Read the rooms in this order: `schema` (the tables), `stage` (what a stage is), `rules` (the
only thing that removes a document), `contract` and `run` (one partition through one segment,
and its books), `recipe` (TOML to a checked plan of stages), `plan` (segments and partitions
with their keys), `examples`, `canaries` and `bands` (every rule tried before it is believed, and
held to what it may remove), `store` (content-addressed outputs), `tasks`, `children` and `cuts` (what a
worker does; `spill` is where it puts aside what it cannot hold), `build` (the whole chain),
`seal` and `manifest` (make a version, find it again), `audit` (re-read what lies on disk and
account for every document), `changes`, `stored`, `rejudge` and `whatif` (other rules over what was
stored), `remaking` (the recipe with its rules changed), `recorded` and `rebuild` (built again from its records),
`extending` (a version with more sources, from what is stored of it), `forgetting` (a version without some documents, a
store without their text), `licences` (what SPDX expressions let in), `papers` (attribution, cards and statements of a
version), `choices` (which documents hang on a dialect), `filters` and `ngrams` (what stages judge by, made here).
"""
