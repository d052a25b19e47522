"""Nothing is read round the door: every call that opens or parses a file stands here with its reason.

Files from outside are opened by `agd_core.basics.safe_files`. A new call of one of these names fails this test until it
goes through the door, or until somebody says here why it need not.
"""

import ast

import pytest

from tests.test_architecture import SOURCES

OPENS = {
    "open", "os.open", "io.open", "gzip.open", "tarfile.open", "Image.open", "safe_open", "load_file", "json.load",
    "json.loads", "yaml.load", "yaml.safe_load", "np.load", "np.fromfile", "np.memmap", "torch.load", "torch.from_file",
    "pq.ParquetFile", "pq.read_table", "pq.read_metadata", "pa.memory_map", "pa.OSFile", "load_safetensors",
    "shutil.copy", "shutil.copyfile", "shutil.copytree",
}  # fmt: skip
OPENING_METHODS = {
    "read_text", "read_bytes", "from_pretrained", "from_single_file", "from_config_file", "open_array", "open_group",
    "model_validate_json", "validate_json", "download",
}  # fmt: skip
READING_MODES = {"r", "rb", "rt", "r+b"}
DOOR = "agd_core/basics/safe_files.py"
OURS = "our own file: shipped, or written by this process or the lab in its private folder"
PLAIN = "parses what was never a file, or what the door has read"
CHECKED = "the library opens by itself; the door looked at the file before"
BYTES = "parses bytes that were read through the door"
REASONS: dict[str, dict[str, str]] = {
    "agd_core/methods/adapter_files.py": {"model_validate_json": PLAIN, "validate_json": PLAIN},
    "agd_core/basics/atomic.py": {
        "os.open": "a folder, to force it to disk",
        "Path.open": "the partial file just written",
    },
    "agd_core/pipelines/one_pass_folder.py": {"shutil.copytree": CHECKED},
    "agd_core/models/difference.py": {"shutil.copyfile": CHECKED, "shutil.copytree": CHECKED},
    "agd_core/models/prompt_encoder.py": {"from_pretrained": CHECKED},
    "agd_core/models/prompt_length.py": {"from_pretrained": CHECKED},
    "agd_core/models/reading.py": {"from_pretrained": CHECKED},
    "agd_core/models/sources.py": {
        "download": "a hub id that a person named; what comes is looked at like any folder",
    },
    "agd_core/basics/checksums.py": {"json.loads": PLAIN},
    "agd_core/basics/digest.py": {"Path.open": "sums a file that its caller has confined and found regular"},
    "agd_core/evaluation/extractors/clip.py": {"from_pretrained": CHECKED},
    "agd_core/builtin/fashion_mnist.py": {"gzip.open": "unpacks a file that the door has opened, up to a limit"},
    "agd_core/builtin/miniatures/dit.py": {"json.loads": OURS, "read_text": OURS},
    "agd_core/evaluation/protocol.py": {"json.loads": PLAIN},
    "agd_core/pretraining/emoji/fetching.py": {
        "tarfile.open": "the archive that npm has just put into a folder of this process; plain members alone are read",
    },
    "agd_core/pretraining/emoji/frozen_base.py": {"from_pretrained": CHECKED},
    "agd_core/pretraining/emoji/pipeline.py": {"json.loads": OURS, "read_text": OURS, "shutil.copytree": OURS},
    "agd_core/pretraining/emoji/rendering.py": {"Image.open": "the picture that resvg has just drawn, in memory"},
    "agd_core/pretraining/emoji/tokenizer.py": {
        "from_pretrained": OURS,
        "json.loads": "the tokenizer that this process has just learnt, as text",
    },
    "agd_core/report/model_card.py": {"read_text": OURS},
    "agd_core/report/page.py": {"read_text": OURS},
    "agd_core/models/schedulers.py": {"json.loads": "settings that this process wrote as text, the key of a cache"},
    "agd_core/basics/weights.py": {"load_safetensors": BYTES, "torch.load": BYTES},
    "flows/machine/device_lease.py": {"json.loads": OURS, "Path.open": OURS, "read_text": OURS},
    "flows/machine/file_lock.py": {"os.open": "a lock; no link is followed and nothing of it is read"},
    "flows/lab/artifacts.py": {"read_bytes": OURS},
    "flows/lab/automations.py": {"read_text": OURS, "yaml.safe_load": OURS},
    "flows/lab/child.py": {"read_text": OURS},
    "flows/lab/deploying.py": {"read_text": OURS, "yaml.safe_load": OURS},
    "flows/lab/drain.py": {"json.loads": OURS, "read_text": OURS},
    "flows/lab/flow_processes.py": {"read_bytes": "the kernel's /proc of the user's own processes"},
    "flows/lab/guard.py": {"json.loads": "a request's body, of bounded size; only the names in it are looked at"},
    "flows/lab/nightly_flows.py": {"read_bytes": OURS},
    "flows/lab/private.py": {"os.open": OURS, "read_text": OURS},
    "flows/lab/up.py": {"json.loads": OURS, "read_text": OURS},
    "flows/machine/out_of_memory.py": {"read_text": "the kernel's count of kills for want of memory"},
    "flows/printing.py": {"os.open": "the null device in place of a closed stream"},
    "flows/published.py": {"os.open": "a folder, locked while its list of files is written"},
    "storage/exports/archive.py": {"open_array": "an array in memory, made of bytes that were read through the door"},
    "storage/artefacts.py": {"json.loads": PLAIN},
    "storage/sources/parquet.py": {"pq.ParquetFile": "reads a file that the door has opened"},
    "storage/sources/pixels.py": {"Image.open": BYTES},
    "storage/sources/tar.py": {"tarfile.open": "reads a file that the door has opened"},
    "storage/sources/zarr_array.py": {"open_array": CHECKED},
    "storage/objects/local.py": {"os.open": "keys are plain names; opened without waiting and found regular"},
    "storage/objects/staged_file.py": {"os.open": "our own partial files, created exclusively or found by their names"},
    "storage/trajectories/preparation.py": {"json.loads": PLAIN},
    "storage/sealed_parquet.py": {"pq.ParquetFile": BYTES},
}


def opening_calls(tree: ast.AST) -> set[str]:
    """Names of the calls that open or parse a file, as they stand in the source."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        method = name.rpartition(".")[2] if isinstance(node.func, ast.Attribute) else ""
        if name in OPENS and not (name == "open" and modes and not READING_MODES & set(map(str, modes))):
            found.add(name)
        elif method in OPENING_METHODS:
            found.add(method)
        elif method == "open" and READING_MODES & set(map(str, modes)):
            found.add("Path.open")
    return found


def test_every_reader_goes_through_the_door_or_says_why_not():
    found = {name: calls for name, tree in SOURCES.items() if name != DOOR and (calls := opening_calls(tree))}
    assert found == {name: set(reasons) for name, reasons in REASONS.items()}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.read_text()", {"read_text"}),
        ("with open(path) as file: pass", {"open"}),
        ("with path.open('rb') as file: pass", {"Path.open"}),
        ("path.open(mode='r')", {"Path.open"}),
        ("store.open(objects)", set()),
        ("path.open('wb')", set()),
        ("x = json.loads(data)", {"json.loads"}),
        ("pq.ParquetFile(part)", {"pq.ParquetFile"}),
        ("kind.from_pretrained(folder)", {"from_pretrained"}),
    ],
)
def test_the_search_finds_what_it_should(source, found):
    assert opening_calls(ast.parse(source)) == found
