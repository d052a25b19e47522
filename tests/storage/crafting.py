"""Sealed files again, with other content and a checksum that is right; fixtures for tests of what is crafted."""

import json

import pyarrow as pa

from storage.exports.base import INDEX
from storage.sealed_parquet import seal, unseal

HUGE = 2**60
PICKLE = [{"name": "numcodecs.pickle", "configuration": {}}]


def reseal(objects, key, table=None, **footer):
    """A sealed file again, with another table or other words in its footer; the checksum is right."""
    found, known = unseal(objects.read(key))
    changed = known | footer
    table = (found if table is None else table).replace_schema_metadata(None)
    objects.put(key, seal(table, {k: v for k, v in changed.items() if v is not None}))


def with_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def metadata(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


def index_table(objects):
    return unseal(objects.read(INDEX))[0]
