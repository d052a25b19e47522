import pyarrow.parquet as pq
import pytest

from storage.history import History, MetricRecord
from storage.sealed_parquet import seal, unseal


def record(name="mine", night="2026-11-21", metric="fd", value=0.65, **changes):
    fields = {"adapter_digest": "a" * 64, "base_fingerprint": "b" * 64, "protocol_digest": "c" * 64, "seed": 2**63 - 1}
    fields |= {"standard_error": 0.04, "better": "lower", "images": 100, "nfe": 20.0, "seconds": 1.5, "device": "CPU"}
    fields |= {"versions": '{"torch":"2"}', "finished_at": "2026-11-21T02:03:04+00:00"}
    return MetricRecord(night=night, name=name, metric=metric, value=value, **fields | changes)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "history")


def test_what_is_appended_is_read_back(history):
    records = [record(), record(metric="accuracy", value=float("inf"), better="higher")]
    path = history.append(records)
    assert history.night("mine", "2026-11-21") == records
    assert history.read().records == records
    assert [file.name for file in path.parent.iterdir()] == ["2026-11-21.parquet"]


def test_an_empty_history_is_a_table_of_no_rows(history):
    nights = history.read()
    assert (nights.table.num_rows, nights.records, nights.problems) == (0, [], [])
    assert history.night("mine", "2026-11-21") == []
    assert "standard_error" in nights.table.column_names


def test_nights_come_sorted_whatever_the_order_they_were_written_in(history):
    for night in ("2026-11-22", "2025-12-31", "2026-11-21-again", "2026-11-21"):
        for name in ("b", "a"):
            history.append([record(name, night)])
    found = [(row.night, row.name) for row in history.read().records]
    assert found == sorted(found)
    assert len(found) == 8
    assert [row.night for row in history.read("a").records] == sorted({night for night, _ in found})


def test_a_night_is_never_changed(history):
    path = history.append([record(value=1.0)])
    before = path.read_bytes()
    assert history.append([record(value=2.0)]) == path
    assert path.read_bytes() == before
    assert [row.value for row in history.read().records] == [1.0]


@pytest.mark.parametrize("records", [[], [record(), record(night="2026-11-22")], [record(), record(name="other")]])
def test_only_one_adapter_and_night_at_a_time(history, records):
    with pytest.raises(ValueError, match="one adapter and night at a time"):
        history.append(records)


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def newer(data):
    return seal(unseal(data)[0], {"format_version": "2"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 3], "has no checksum"),
        (lambda data: data[:-20], "fails its checksum"),
        (lambda data: b"", "has no checksum"),
        (flip, "fails its checksum"),
        (newer, "has format version 2, this is version 1"),
    ],
)
def test_a_torn_file_is_named_and_the_others_are_read(history, damage, message):
    kept = [record(night="2026-11-20")]
    history.append(kept)
    path = history.append([record()])
    path.write_bytes(damage(path.read_bytes()))
    nights = history.read()
    assert nights.records == kept
    assert nights.problems == [f"{path}: {message}"]
    assert history.night("mine", "2026-11-21") == []


def test_a_torn_night_can_be_written_again(history):
    path = history.append([record()])
    path.write_bytes(path.read_bytes()[:50])
    history.append([record(value=3.0)])
    assert [row.value for row in history.read().records] == [3.0]


def test_a_file_under_another_name_is_no_other_night(history):
    path = history.append([record()])
    path.with_name("2026-11-22.parquet").write_bytes(path.read_bytes())
    assert len(history.read().problems) == 1
    assert len(history.read().records) == 1


def test_any_parquet_reader_opens_a_night(history):
    table = pq.ParquetFile(history.append([record()])).read()
    assert table.to_pylist()[0]["value"] == 0.65


def test_a_leftover_of_a_killed_writer_is_no_night(history):
    path = history.append([record()])
    path.with_name("2026-11-22.parquet.77.partial").write_bytes(b"half")
    assert history.read().problems == []
    assert len(history.read().records) == 1
