"""The store: whole or not at all, and damage is told."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.store import Store, StoreError, read_group, read_parquet, write_tables

KEY = "ab" * 16


def fill(store: Store, key: str = KEY) -> None:
    with store.writing(key) as out:
        out.table("t.parquet", pa.table({"doc_id": [f"d{i}" for i in range(2000)], "text": ["some text"] * 2000}))
        out.result = {"rows": 2000}


def test_an_output_exists_only_when_it_is_whole(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="in the middle"), store.writing(KEY) as out:
        out.table("t.parquet", pa.table({"a": [1]}))
        raise RuntimeError("in the middle")
    assert store.done(KEY) is None and not list(tmp_path.rglob("t.parquet"))
    fill(store)
    assert store.result(KEY) == {"rows": 2000}


def test_a_second_writer_of_the_same_key_changes_nothing(tmp_path):
    store = Store(tmp_path)
    fill(store)
    before = store.file(KEY, "t.parquet").stat().st_ino
    fill(store)
    assert store.file(KEY, "t.parquet").stat().st_ino == before
    assert not [p for p in store.folder(KEY).parent.iterdir() if p.name.startswith(".")]


def test_a_half_written_folder_without_marker_is_replaced(tmp_path):
    store = Store(tmp_path)
    store.folder(KEY).mkdir(parents=True)
    (store.folder(KEY) / "t.parquet").write_bytes(b"PAR1 half")
    assert store.done(KEY) is None
    fill(store)
    assert read_parquet(store.file(KEY, "t.parquet")).num_rows == 2000


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        fill(Store(tmp_path / name))
    one, two = (Store(tmp_path / name).file(KEY, "t.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_every_flipped_byte_of_a_table_is_noticed(tmp_path):
    store = Store(tmp_path)
    fill(store)
    path = store.file(KEY, "t.parquet")
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(StoreError, match=r"t\.parquet"):
            store.check(KEY)
    path.write_bytes(whole[:-10])
    with pytest.raises(StoreError, match="size differs"):
        store.done(KEY)


def test_a_flipped_byte_in_the_data_is_an_error_when_it_is_read(tmp_path):
    store = Store(tmp_path)
    fill(store)
    path = store.file(KEY, "t.parquet")
    whole = bytearray(path.read_bytes())
    whole[200] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(StoreError, match="damaged"):
        read_parquet(path)


def test_a_table_is_read_back_by_its_number_also_where_it_is_empty_or_long(tmp_path):
    schema = pa.schema([("n", pa.int64())])
    tables = [pa.table({"n": range(first, last)}, schema) for first, last in ((0, 3), (3, 3), (3, 1_200_003), (0, 0))]
    assert write_tables(tmp_path / "t.parquet", schema, iter(tables)) == 1_200_003
    assert [read_group(tmp_path / "t.parquet", number) for number in range(4)] == tables
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no longer")
    with pytest.raises(StoreError, match="is damaged"):
        read_group(tmp_path / "t.parquet", 0)
