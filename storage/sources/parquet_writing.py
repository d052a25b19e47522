"""Writing a Parquet file of pictures with what is known of each, which `storage.sources.parquet` reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from agd_core.basics.atomic import replacing

_GROUP_ROWS = 128
"""Small, so that few pictures are in memory when the file is read as a stream."""


def write_parquet(columns: Mapping[str, Sequence[bytes] | Sequence[str] | Sequence[bool]], path: Path) -> None:
    """Write columns of equal length, whole or not at all; equal columns give equal bytes.

    Args:
        columns: values by name; the images' column is `storage.sources.parquet.IMAGE`.
        path: the file.

    Raises:
        OSError: no space, no permission; it names `path`.
    """
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with replacing(path) as partial:
        pq.write_table(table, partial, row_group_size=_GROUP_ROWS, compression="zstd", store_schema=False)
