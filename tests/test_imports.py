"""Which package may import which, read from the syntax trees: nothing has to be imported for it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The packages and modules of lvd, each above those that it may import.
ORDER = (
    *("errors", "voting", "utils", "x0", "data", "detectors"),
    *("rules", "evaluation", "training"),
)
MAY_IMPORT = {name: set(ORDER[:place]) for place, name in enumerate(ORDER)}
MAY_IMPORT["guard"] = {"errors", "voting", "utils", "x0", "data", "detectors", "rules"}

# Folders and scripts at the root: which of the others each may import.
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
PARTS = {
    "lvd",
    "MagicTime",
    "lvd_server",
    "lvd_study",
    "lvd_labels",
    "lvd_plan",
    "benchmarks",
    "tests",
    *SCRIPTS,
}
MAY_NOT_IMPORT = {
    "lvd": PARTS - {"lvd"},
    "MagicTime": PARTS - {"lvd", "MagicTime"},
    "lvd_server": PARTS - {"lvd", "MagicTime", "lvd_server"},
    "lvd_study": {"tests"},  # the study calls benchmarks
    "lvd_labels": PARTS - {"lvd", "lvd_labels"},
    "lvd_plan": PARTS - {"lvd", "MagicTime", "lvd_plan"},
    "benchmarks": {"tests", "lvd_study"},
    **{script: {"tests", "benchmarks"} for script in SCRIPTS},
}


def module_name(path, root=ROOT):
    """lvd/x0/file.py → "lvd.x0.file"; lvd/x0/__init__.py → "lvd.x0"."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(root=ROOT):
    """Return {module: the modules of this repository that it imports}.

    Imports inside functions count, and so does `import_module("name")` with a literal name.
    """
    paths = [path for path in root.rglob("*.py") if not _is_hidden(path.relative_to(root))]
    modules = {module_name(path, root) for path in paths}
    imports = {}
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = path.parent.relative_to(root).parts
        names = {name for node in ast.walk(tree) for name in _names_of(node, package, modules)}
        importer = module_name(path, root)
        imports[importer] = {name for name in names if name in modules} - {importer}
    return imports


def _is_hidden(path):
    return any(part.startswith((".", "build")) for part in path.parts[:-1])


def _names_of(node, package, modules):
    """The dotted names that one statement imports; of `from a import b` that is a.b if it is a
    module, else a.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        start = package[: len(package) - node.level + 1] if node.level else ()
        origin = ".".join([*start, *filter(None, [node.module])])
        inner = [f"{origin}.{alias.name}" for alias in node.names]
        return [name if name in modules else origin for name in inner]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
        return [part.value for part in node.args if isinstance(part, ast.Constant)]
    return []


def upward_imports(imports):
    """Sentences about the modules of lvd that import a package which is not below theirs."""
    wrong = []
    for importer, names in sorted(imports.items()):
        if importer.partition(".")[0] != "lvd" or importer == "lvd":
            continue  # lvd/__init__.py only says where the public names are
        package = importer.split(".")[1]
        for name in sorted(names):
            if name == "lvd":
                wrong.append(f"{importer} imports lvd itself, which is above it")
            elif name.startswith("lvd."):
                other = name.split(".")[1]
                if other != package and other not in MAY_IMPORT[package]:
                    wrong.append(f"{importer} imports {name}: {other} is not below {package}")
    return wrong


def outward_imports(imports):
    """Sentences about the modules that import a part of the repository which they may not."""
    wrong = []
    for importer, names in sorted(imports.items()):
        forbidden = MAY_NOT_IMPORT.get(importer.partition(".")[0], set())
        for name in sorted(names):
            part = name.partition(".")[0]
            if part in forbidden:
                wrong.append(f"{importer} imports {name}")
    return wrong


def find_circle(imports):
    """Return the modules of one circle of imports, the first one again at the end, or []."""
    finished = set()

    def follow(module, trail):
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for name in sorted(imports.get(module, ())):
            if circle := follow(name, [*trail, module]):
                return circle
        finished.add(module)
        return []

    for module in sorted(imports):
        if circle := follow(module, []):
            return circle
    return []


@pytest.fixture(scope="module")
def imports():
    return read_imports()


def test_packages_of_lvd_import_only_those_below_them(imports):
    assert {name.split(".")[1] for name in imports if name.startswith("lvd.")} == set(MAY_IMPORT)
    assert upward_imports(imports) == []


def test_no_part_imports_what_it_may_not(imports):
    assert len(SCRIPTS) > 5
    assert outward_imports(imports) == []


def test_tests_take_their_helpers_from_their_worlds_alone(imports):
    for importer, names in imports.items():
        if importer.startswith("tests."):
            helpers = {name for name in names if name.startswith("tests.")}
            own = ("tests.worlds", "tests.fuzz") if ".fuzz." in importer else ("tests.worlds",)
            assert all(name.startswith(own) for name in helpers), (importer, helpers)


def test_no_circle_of_imports(imports):
    without_public_names = {name: found for name, found in imports.items() if name != "lvd"}
    assert find_circle(without_public_names) == []


@pytest.fixture
def small_repository(tmp_path):
    """Function that writes {path: text} and reads the imports."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_imports(tmp_path)

    return write


def test_an_upward_import_is_seen(small_repository):
    imports = small_repository(
        {
            "lvd/__init__.py": "",
            "lvd/x0/file.py": "def f():\n    from lvd.data import split\n",
            "lvd/data/split.py": "import lvd.errors\nfrom ..x0 import file\n",
            "lvd/guard/guard.py": "from lvd.evaluation.votes import x\nfrom lvd import Guard\n",
            "lvd/evaluation/votes.py": "",
            "lvd/errors.py": "",
        }
    )
    assert imports["lvd.data.split"] == {"lvd.errors", "lvd.x0.file"}
    assert upward_imports(imports) == [
        "lvd.guard.guard imports lvd itself, which is above it",
        "lvd.guard.guard imports lvd.evaluation.votes: evaluation is not below guard",
        "lvd.x0.file imports lvd.data.split: data is not below x0",
    ]
    assert find_circle(imports) == ["lvd.data.split", "lvd.x0.file", "lvd.data.split"]


def test_an_outward_import_is_seen(small_repository):
    imports = small_repository(
        {
            "train_mae.py": "import tests.world",
            "tests/world.py": "import train_mae",
            "lvd/errors.py": "import train_mae",
            "MagicTime/utils/run.py": "import benchmarks.cost\nfrom lvd import errors\n",
            "benchmarks/cost.py": "",
        }
    )
    assert outward_imports(imports) == [
        "MagicTime.utils.run imports benchmarks.cost",
        "lvd.errors imports train_mae",
        "train_mae imports tests.world",
    ]
