"""The house rules that a machine can check, by walking the syntax trees of every source file."""

import ast
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agd_core", "storage", "flows")
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
"""Every source file's tree, parsed once."""

ALLOWED_OWN_IMPORTS = {
    "agd_core": ("agd_core",),
    "storage": (
        "storage",
        "agd_core.data.records",
        "agd_core.basics.digest",
        "agd_core.basics.permutation",
        "agd_core.basics.atomic",
        "agd_core.basics.errors",
        "agd_core.basics.home",
        "agd_core.basics.safe_files",
    ),
    "flows": ("flows", "storage", "agd_core"),
}
STORAGE_FORMATS = ("zarr", "numcodecs", "webdataset", "pyarrow")
PREFECT_ROOM = "flows/lab/"
CORE_ORDER = (
    ("basics",),
    ("builtin",),
    ("models",),
    ("data", "guidance"),
    ("methods",),
    ("memory", "pipelines"),
    ("evaluation",),
    ("report", "pretraining"),
)
"""The rooms of `agd_core`, from the ground up."""
ALLOWED_ASSIGNMENTS = {
    # what diffusers' pipelines ask before CFG; its own IP-Adapter loader writes the attribute beside it
    "agd_core/models/doors/doors.py": {"network.config.time_cond_proj_dim"},
    # a copy of our own object that says which network it runs
    "agd_core/methods/finetune.py": {"run.backbone"},
    # our own function, named after its job
    "flows/lab/flows.py": {"run_job.__name__", "run_job.__qualname__"},
}
MAX_CORE_ENTRIES = 12
MAX_FILE_LINES = 300
MAX_STRING_TESTS = 2


def offenders(find: Callable[[str, ast.Module], Iterable[str]], package: str = "") -> dict[str, list[str]]:
    """By file: what a rule finds in it."""
    found = {name: sorted(find(name, tree)) for name, tree in SOURCES.items() if name.startswith(package)}
    return {name: problems for name, problems in found.items() if problems}


def modules() -> dict[str, str]:
    """Files by the name under which they are imported."""
    return {name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name for name in SOURCES}


def import_graph() -> dict[str, set[str]]:
    """Which files a file imports, for type checking and inside of functions too; files of our own only."""
    files = modules()
    return {name: {files[used] for used in imported_modules(tree, files)} - {name} for name, tree in SOURCES.items()}


def imported_modules(tree: ast.AST, files: Collection[str]) -> set[str]:
    """Those of `files` that a file imports; of `from package import module` the module alone."""
    names = imported(tree) & set(files)
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    only_modules = {
        node.module for node in froms if all(f"{node.module}.{alias.name}" in files for alias in node.names)
    }
    return names - only_modules


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph of the folders of `storage` and `flows` and of the files beside them."""
    found: dict[str, set[str]] = {}
    for name, used in graph.items():
        if name.startswith("agd_core/"):
            continue
        found.setdefault(room_of(name), set()).update(map(room_of, used))
    return {room: used - {room} for room, used in found.items()}


def room_of(name: str) -> str:
    return "/".join(Path(name).with_suffix("").parts[:2])


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of nodes that reach one another."""
    reach = {node: reachable(graph, node) for node in graph}
    groups = {
        tuple(sorted(o for o in reach[node] if node in reach.get(o, ()))) for node in graph if node in reach[node]
    }
    return sorted(groups)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found, waiting = set(), [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names.add("a relative import")
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def begins(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def wrong_arrows(package: str, tree: ast.AST) -> set[str]:
    own = {name for name in imported(tree) if begins(name, (*PACKAGES, "a relative import"))}
    exact = {name for name in own if begins(name, ALLOWED_OWN_IMPORTS[package])}
    parents = {name for name in own - exact if any(other.startswith(name + ".") for other in exact)}
    return own - exact - parents


def assigned(node: ast.AST) -> list[ast.expr]:
    """Every single target of an assignment statement, tuples taken apart."""
    targets = {
        ast.Assign: lambda n: n.targets,
        ast.AugAssign: lambda n: [n.target],
        ast.AnnAssign: lambda n: [n.target],
    }
    found = targets[type(node)](node) if type(node) in targets else []
    return [
        item for target in found for item in (target.elts if isinstance(target, ast.Tuple | ast.List) else [target])
    ]


def library_assignments(tree: ast.AST) -> list[str]:
    """Assignments such as `module.forward = f`, `pipe.unet = x` or `torch.nn.Linear.forward = f`."""
    targets = [target for node in ast.walk(tree) for target in assigned(node) if isinstance(target, ast.Attribute)]
    own = [t for t in targets if isinstance(t.value, ast.Name) and t.value.id == "self"]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "setattr"]
    return [ast.unparse(node) for node in [*(t for t in targets if t not in own), *calls]]


def unsafe_loads(tree: ast.AST) -> list[str]:
    banned = ("pickle", "dill", "cloudpickle", "marshal", "shelve", "torch.load", "importlib")
    found = [name for name in imported(tree) if begins(name, banned) and not begins(name, ("importlib.metadata",))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
            found += [] if safe else [ast.unparse(node)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            found += [ast.unparse(node)] if any(k.arg == "allow_pickle" for k in node.keywords) else []
    return found


def string_tests(node: ast.If) -> int:
    """How many branches of an if/elif chain compare with a string literal."""
    count = 0
    while True:
        compares = [c for c in ast.walk(node.test) if isinstance(c, ast.Compare)]
        literals = [x for c in compares for x in [c.left, *c.comparators] if isinstance(x, ast.Constant)]
        count += any(isinstance(x.value, str) for x in literals)
        if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            node = node.orelse[0]
        else:
            return count


def string_chains(tree: ast.AST) -> list[str]:
    chains = [n for n in ast.walk(tree) if isinstance(n, ast.If) and string_tests(n) > MAX_STRING_TESTS]
    matches = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Match)
        and sum(isinstance(v, ast.Constant) and isinstance(v.value, str) for c in n.cases for v in ast.walk(c.pattern))
        > MAX_STRING_TESTS
    ]
    return [f"line {node.lineno}" for node in [*chains, *matches]]


def core_imports_upwards(name: str, tree: ast.Module) -> set[str]:
    ranks = {room: rank for rank, rooms in enumerate(CORE_ORDER) for room in rooms}
    room = Path(name).parts[1]
    if room == "__init__.py":
        return set()
    if room not in ranks:
        return {f"{room} has no place in CORE_ORDER"}
    used = {other.split(".")[1] for other in imported(tree) if other.startswith("agd_core.")}
    return {other for other in used if other in ranks and ranks[other] > ranks[room]}


def public_types(tree: ast.Module) -> set[str]:
    """Classes and type aliases that a file defines for others: public CamelCase names at its top level."""
    named = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    named |= {target.id for node in tree.body for target in assigned(node) if isinstance(target, ast.Name)}
    return {name for name in named if name[0].isupper() and not name.isupper()}


def test_imports_run_one_way():
    assert offenders(lambda name, tree: wrong_arrows(name.split("/")[0], tree)) == {}


def test_prefect_is_imported_in_the_lab_only():
    users = offenders(lambda name, tree: {other for other in imported(tree) if begins(other, ("prefect",))})
    assert [name for name in users if not name.startswith(PREFECT_ROOM)] == []


def test_the_core_knows_no_storage_format():
    assert (
        offenders(lambda name, tree: {n for n in imported(tree) if begins(n, STORAGE_FORMATS)}, package="agd_core/")
        == {}
    )


def test_inside_the_core_imports_run_one_way():
    assert offenders(core_imports_upwards, package="agd_core/") == {}


def test_the_core_is_seen_at_a_glance():
    entries = {name.split("/")[1] for name in SOURCES if name.startswith("agd_core/")}
    assert len(entries) <= MAX_CORE_ENTRIES, sorted(entries)


def test_no_object_of_a_library_is_assigned_to():
    found = offenders(lambda name, tree: set(library_assignments(tree)))
    assert found == {name: sorted(targets) for name, targets in ALLOWED_ASSIGNMENTS.items()}


def test_nothing_is_unpickled():
    assert offenders(lambda name, tree: unsafe_loads(tree)) == {}


def test_no_chains_on_strings():
    assert offenders(lambda name, tree: string_chains(tree)) == {}


def test_files_stay_short():
    lines = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in SOURCES}
    assert {name for name, count in lines.items() if count > MAX_FILE_LINES} == set()


def test_no_files_import_each_other():
    assert circles(import_graph()) == []


def test_no_rooms_import_each_other():
    """Of `storage` and `flows`; the core has `CORE_ORDER`."""
    assert circles(rooms(import_graph())) == []


def test_the_circle_check_sees_imports_for_type_checking_and_in_functions():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}
    assert circles(graph) == [("a", "b", "c")]
    hidden = "if TYPE_CHECKING:\n import a\ndef f():\n from b import c"
    assert imported_modules(ast.parse(hidden), {"a", "b", "b.c", "d"}) == {"a", "b.c"}


def test_a_type_name_means_one_thing():
    homes = Counter(name for tree in SOURCES.values() for name in public_types(tree))
    assert {"AdapterCard", "Images", "Point"} <= set(homes), "classes and aliases are found"
    assert [name for name, count in homes.items() if count > 1] == []


def test_every_test_file_has_a_name_of_its_own():
    """Pytest imports them by their bare names: two of one name stop the whole run, but neither fails alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_deployments_hold_no_code():
    assert list((ROOT / "deployments").rglob("*.py")) == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (lambda tree: wrong_arrows("agd_core", tree), "from storage.trajectories.zarr_store import StoreSpec"),
        (lambda tree: wrong_arrows("agd_core", tree), "import flows.config"),
        (lambda tree: wrong_arrows("storage", tree), "from agd_core.methods import Trained"),
        (lambda tree: wrong_arrows("storage", tree), "from agd_core import methods"),
        (library_assignments, "module.forward = f"),
        (library_assignments, "torch.nn.Linear.forward = f"),
        (library_assignments, "setattr(pipe, 'unet', f)"),
        (library_assignments, "a.forward, b = f, g"),
        (library_assignments, "a.forward: Any = f"),
        (lambda tree: wrong_arrows("agd_core", tree), "from .. import storage"),
        (unsafe_loads, "from torch import load"),
        (unsafe_loads, "import importlib"),
        (unsafe_loads, "import pickle"),
        (unsafe_loads, "torch.load(path)"),
        (unsafe_loads, "torch.load(path, weights_only=False)"),
        (string_chains, "if a == 'x': pass\nelif a == 'y': pass\nelif a == 'z': pass"),
        (string_chains, "match a:\n case 'x': pass\n case 'y': pass\n case 'z': pass"),
    ],
)
def test_the_checks_find_what_they_look_for(check, source):
    assert check(ast.parse(source))
