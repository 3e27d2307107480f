"""An output of the store without some documents: what other documents have in it stays as it is, value by value.

No stage is run and no rule is judged again, so nothing but these documents can change, whatever code is installed. An
output that holds none of them is its own stripped one, under the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.books import BRIDGES, SegmentKeys
from pipeline.digests import digest, source_digest
from pipeline.mixing import FILE
from pipeline.plan import Spec
from pipeline.run import BORN
from pipeline.schema import cuts_file
from pipeline.store import Store, Writing, read_group, read_parquet, write_tables

Rows = np.ndarray


class Stripper:
    """Takes `gone` (ids) out of outputs, each at most once."""

    def __init__(self, store: Store, gone: pa.Array) -> None:
        self.store, self.gone = store, gone
        self._rows: dict[str, Rows] = {}

    def part(self, key: str, number: int) -> str:
        """A partition of segment `number`. Who entered the first one entered it; later ones they never reached."""
        tables = ("documents.parquet", "errors.parquet", *(("entered.parquet",) if number else ()))
        if not any(len(self._hits(key, name)) for name in tables):
            return key
        came = read_parquet(self.store.file(key, "entered.parquet"), ["doc_id"])["doc_id"].combine_chunks()

        def write(out: Writing) -> None:
            for path in sorted(self.store.folder(key).glob("*.parquet")):
                keep = path.name == "entered.parquet" and not number
                out.table(path.name, read_parquet(path) if keep else self._without(read_parquet(path)))
            entered, errors = (read_parquet(out.folder / f"{name}.parquet") for name in ("entered", "errors"))
            out.result = {
                "entered": entered.num_rows,
                "text_bytes": pc.sum(entered["text_bytes"]).as_py() or 0,
                "documents": read_parquet(out.folder / "signals.parquet", ["doc_id"]).num_rows,
                "added": self._added(key, came),
                "errors": errors.num_rows,
            }

        return self._write(key, write)

    def _added(self, key: str, came: pa.Array) -> dict[str, int]:
        """How many each stage has added, without those who are gone: they were never born."""
        added: dict[str, int] = dict(self.store.result(key)["added"])
        stages = list(added)
        signals = read_parquet(self.store.file(key, "signals.parquet"), ["doc_id", BORN])
        numbers = self.store.spec(key).get("stages", [])
        names = [use.rpartition(".")[2] for use, _ in numbers]
        for born in signals.filter(pc.is_in(signals["doc_id"], self.gone))[BORN].to_pylist():
            if born:
                added[names[born - 1]] -= 1
        errors = read_parquet(self.store.file(key, "errors.parquet"), ["doc_id"])["doc_id"].combine_chunks()
        accused = pc.and_(pc.is_in(errors, self.gone), pc.invert(pc.is_in(errors, came)))
        if count := pc.sum(accused).as_py():
            added[stages[-1]] -= count
        return added

    def ledger(self, key: str) -> str:
        """The judgement of a segment's own rules."""
        if not len(self._hits(key, "ledger.parquet")):
            return key

        def write(out: Writing) -> None:
            table = self._without(read_parquet(self.store.file(key, "ledger.parquet")))
            out.table("ledger.parquet", table)
            out.result = {"left": table.num_rows}

        return self._write(key, write)

    def pairs(self, key: str, stage: str, segment: SegmentKeys) -> str:
        """The pairs of a relating stage: of sets that nobody has any more, or at places of those who are gone."""
        table = read_parquet(self.store.file(key, "pairs.parquet"))
        if {"part", "row"} <= set(table.column_names):
            left = self._moved(table, segment)
        elif {"a", "b"} <= set(table.column_names):
            lost = self._digests(stage, segment)
            left = table.filter(pc.invert(pc.or_(*(pc.is_in(table[end], lost) for end in ("a", "b")))))
        else:
            left = table
        if left.equals(table):
            return key

        def write(out: Writing) -> None:
            out.table("pairs.parquet", left.replace_schema_metadata(table.schema.metadata))
            out.result = {**self.store.result(key), "pairs": left.num_rows}

        return self._write(key, write)

    def _digests(self, stage: str, segment: SegmentKeys) -> pa.Array:
        """Digests of sets that only the gone have."""
        ours, others = [], []
        for key in segment.parts:
            table = read_parquet(self.store.file(key, f"sketch-{stage}.parquet"), ["doc_id", "digest"])
            hit = pc.is_in(table["doc_id"], self.gone)
            ours.append(table.filter(hit)["digest"])
            others.append(table.filter(pc.invert(hit))["digest"])
        mine, theirs = (pa.chunked_array([c for t in side for c in t.chunks], pa.binary(16)) for side in (ours, others))
        mine = mine.drop_null()
        return mine.filter(pc.invert(pc.is_in(mine, theirs.combine_chunks()))).combine_chunks()

    def relation(self, key: str, segment: SegmentKeys) -> str:
        """The signals and the ledger of a relating stage, and the cuts of one that cuts."""
        if not any(len(self._hits(key, name)) for name in ("relation.parquet", "ledger.parquet")):
            return key

        def write(out: Writing) -> None:
            result = dict(self.store.result(key))
            for path in sorted(self.store.folder(key).glob("*.parquet")):
                table = self._without(read_parquet(path))
                if path.name.startswith("cuts-"):
                    part = next(n for n in range(len(segment.parts)) if cuts_file(n) == path.name)
                    table = _at(table, self._shifted(segment.parts[part], table["row"].to_numpy()))
                out.table(path.name, table)
            relation, ledger = (read_parquet(out.folder / f"{name}.parquet") for name in ("relation", "ledger"))
            result |= {"met": relation.num_rows, "left": ledger.num_rows}
            if "spans" in result:
                cut = [name for name in relation.column_names if name.endswith((".cut_bytes", ".cut_spans"))]
                touched = relation.filter(pc.greater(relation[cut[0]], 0))
                sums = {name.rpartition(".cut_")[2]: pc.sum(touched[name]).as_py() or 0 for name in cut}
                result |= {"documents": touched.num_rows, **sums}
            out.result = result

        return self._write(key, write)

    def bridges(self, key: str) -> str:
        """Whose fate another build would change; whoever decides it hangs together with them, and goes with them."""
        if not len(self._hits(key, BRIDGES)):
            return key

        def write(out: Writing) -> None:
            table = self._without(read_parquet(self.store.file(key, BRIDGES)))
            out.table(BRIDGES, table)
            out.result = {"documents": table.num_rows}

        return self._write(key, write)

    def mixed(self, key: str) -> str:
        """How often the others stand, which nobody changes: shares are then what is left."""
        if not any(len(self._hits(key, name)) for name in (FILE, "ledger.parquet")):
            return key

        def write(out: Writing) -> None:
            tables = {
                name: self._without(read_parquet(self.store.file(key, name))) for name in (FILE, "ledger.parquet")
            }
            for name, table in tables.items():
                out.table(name, table)
            again = pc.max_element_wise(pc.subtract(tables[FILE]["copies"], 1), 0)
            counts = {"added": pc.sum(again).as_py() or 0, "left": tables["ledger.parquet"].num_rows}
            out.result = {**self.store.result(key), **counts}

        return self._write(key, write)

    def survivors(self, key: str, segment: SegmentKeys) -> str:
        """Who is left behind a segment; places move up where somebody before them is gone."""
        if not len(self._hits(key, "survivors.parquet")):
            return key

        def write(out: Writing) -> None:
            path = self.store.file(key, "survivors.parquet")
            groups, splits = [], dict[str, int]()
            for number, part in enumerate(segment.parts):
                table = self._without(read_group(path, number))
                groups.append(_at(table, self._shifted(part, table["row"].to_numpy())))
                for name in table["split"].to_pylist():
                    splits[name] = splits.get(name, 0) + 1
            write_tables(out.folder / "survivors.parquet", groups[0].schema, groups)
            before = self.store.result(key)
            out.result = {"documents": sum(t.num_rows for t in groups), "splits": splits} if before else {}

        return self._write(key, write)

    def encoded(self, key: str) -> str:
        """The tokens of a partition, and their rows of the document index."""
        hits = self._hits(key, "documents.parquet")
        if not len(hits):
            return key

        def write(out: Writing) -> None:
            index = read_parquet(self.store.file(key, "documents.parquet"))
            left = np.delete(np.arange(index.num_rows), hits)
            index = index.take(pa.array(left))
            with pa.ipc.open_file(pa.memory_map(str(self.store.file(key, "tokens.arrow")))) as file:
                sink = pa.OSFile(str(out.folder / "tokens.arrow"), "wb")
                first = 0
                with sink, pa.ipc.new_file(sink, file.schema) as writer:
                    for number in range(file.num_record_batches):
                        batch = file.get_batch(number)
                        mine = left[(left >= first) & (left < first + batch.num_rows)] - first
                        # A slice would carry the buffers of its whole batch along: `take` copies what it takes.
                        writer.write(batch.take(pa.array(mine)))
                        first += batch.num_rows
            out.table("documents.parquet", index)
            out.result = {"documents": index.num_rows, "tokens": pc.sum(index["tokens"]).as_py() or 0}

        return self._write(key, write)

    def _hits(self, key: str, name: str) -> Rows:
        ids = read_parquet(self.store.file(key, name), ["doc_id"])["doc_id"]
        found: Rows = np.flatnonzero(pc.is_in(ids, self.gone).to_numpy())
        return found

    def _without(self, table: pa.Table) -> pa.Table:
        if "doc_id" not in table.column_names:
            return table
        return table.filter(pc.invert(pc.is_in(table["doc_id"], self.gone))).combine_chunks()

    def _shifted(self, part: str, rows: Rows) -> Rows:
        """The places of rows of a partition when the gone are out."""
        if part not in self._rows:
            self._rows[part] = self._hits(part, "documents.parquet")
        return rows - np.searchsorted(self._rows[part], rows)

    def _moved(self, table: pa.Table, segment: SegmentKeys) -> pa.Table:
        """Rows at (part, row) of those who stay, at their new places."""
        part, row = (table[name].to_numpy() for name in ("part", "row"))
        keep, moved = np.ones(len(part), bool), row.copy()
        for number, key in enumerate(segment.parts):
            mine = np.flatnonzero(part == number)
            moved[mine] = self._shifted(key, row[mine])
            keep[mine] = ~np.isin(row[mine], self._rows[key])
        return _at(table, moved).filter(pa.array(keep)).combine_chunks()

    @cached_property
    def _code(self) -> str:
        return source_digest(__name__)

    def _write(self, key: str, write: Callable[[Writing], None]) -> str:
        """Do it, unless it stands; the plan keeps what was planned, with who is left out."""
        here = self._met(key)
        new = digest(["strip", self._code, key, here])
        try:
            spec: Spec = self.store.spec(key)
        except (OSError, ValueError):
            spec = {}
        self.store.plan(new, {**spec, "task": "strip", "of": key, "without": here})
        if self.store.done(new) is None:
            self.store.check(key)
            with self.store.writing(new) as out:
                write(out)
        return new

    def _met(self, key: str) -> list[str]:
        """Who of the gone is in any table of an output; where no table has ids, all of them."""
        found: set[str] = set()
        tables = [p for p in self.store.folder(key).glob("*.parquet") if "doc_id" in _columns(p)]
        for path in tables:
            ids = read_parquet(path, ["doc_id"])["doc_id"]
            found.update(ids.filter(pc.is_in(ids, self.gone)).to_pylist())
        return sorted(found) if tables else self.gone.to_pylist()


def _at(table: pa.Table, rows: Rows) -> pa.Table:
    """The same with its documents at these rows."""
    return table.set_column(table.schema.get_field_index("row"), "row", pa.array(rows, table["row"].type))


def _columns(path: Path) -> Sequence[str]:
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(path).names
    return names
