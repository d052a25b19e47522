import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.basics.digest import canonical_json, digest, file_digest

FOR_ALL = settings(max_examples=60, deadline=None, derandomize=True)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@FOR_ALL
@given(PLAIN)
def test_key_order_does_not_change_the_digest(value):
    assert digest(reversed_keys(value)) == digest(value)


@FOR_ALL
@given(PLAIN)
def test_canonical_json_keeps_the_value(value):
    assert json.loads(canonical_json(value)) == value


@FOR_ALL
@given(PLAIN, PLAIN)
def test_different_text_has_a_different_digest(a, b):
    assert (digest(a) == digest(b)) == (canonical_json(a) == canonical_json(b))


def test_digest_is_the_sha256_of_compact_utf8_json():
    assert digest({"b": 1, "a": ["é", 0.5]}) == hashlib.sha256('{"a":["é",0.5],"b":1}'.encode()).hexdigest()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"scale": [number]})


@pytest.mark.parametrize(
    "value", [{1, 2}, Path("folder"), torch.zeros(2), b"bytes", object(), 1j], ids=lambda value: type(value).__name__
)
def test_what_is_not_plain_data_is_refused(value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        digest({"nested": [value]})


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 7])
def test_file_digest_sums_every_byte_whatever_the_block_borders(tmp_path, size):
    data = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    assert file_digest(path) == hashlib.sha256(data[:size]).hexdigest()
