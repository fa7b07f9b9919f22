"""The package's order: data flows one way, public names say what they are, what notebooks call has an example."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from course_utils.checks import EXERCISES

ROOT = Path(__file__).parents[1]
FLOW = [
    {"precision", "distributed", "calling"},  # what the machine has and what a stranger's code does: below everything
    {"data", "cluster"},
    {"views", "text"},
    {"models"},
    {"losses"},
    {"methods"},
    {"train"},
    {"evaluate", "reduce"},
    {"plots"},
    {"widgets"},
    {"claims"},
    {"checks"},
    {"grading"},
    {"notebooks", "league", "classroom"},
    {"doctor"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOW) for room in rooms}
CALLED_IN_NOTEBOOKS = ["data", "views", "text", "models", "losses", "methods", "train", "evaluate", "plots", "widgets"]
CALLED_IN_NOTEBOOKS += ["claims", "cluster", "reduce"]
WITHOUT_EXAMPLE = {"locate"}  # its answer is a path of the machine it runs on


def package():
    """Module name -> source, for every module of course_utils."""
    paths = sorted((ROOT / "course_utils").rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in paths}


def imported(module, source):
    """(line, dotted name) of every import of the package in a module, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "course_utils")


def room_of(name):
    return [*name.split("."), ""][1]


def against_the_flow(modules):
    complaints = []
    for module, source in modules.items():
        room = room_of(module)
        if room == "__init__":
            continue
        if room not in LEVEL:
            complaints.append(f"{module}: {room} has no place in the flow: give it one in FLOW")
            continue
        for line, name in imported(module, source):
            other = room_of(name)
            if other != room and LEVEL.get(other, len(FLOW)) >= LEVEL[room]:
                complaints.append(f"{module}:{line} imports {name}, which is not before {room}")
    return complaints


def test_a_module_imports_only_from_those_before_it():
    assert not against_the_flow(package())


def test_the_package_itself_imports_nothing_so_that_a_leaf_stays_light():
    assert not list(imported("course_utils.__init__", package()["course_utils.__init__"]))


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        (
            "course_utils.data.glyphs",
            "from course_utils.views import augment",
            ["data.glyphs:1 imports.*views.augment"],
        ),
        ("course_utils.data.glyphs", "import os\nimport course_utils.train as t", [":2 imports course_utils.train"]),
        (
            "course_utils.losses",
            "def f():\n    from course_utils import methods",
            [":2 .*methods, which is not before losses"],
        ),
        ("course_utils.models.heads", "from ..evaluate import knn", ["heads:1 imports course_utils.evaluate.knn"]),
        ("course_utils.models.heads", "from .. import train", ["imports course_utils.train"]),
        ("course_utils.views", "from . import train, data", ["imports course_utils.train"]),
        (
            "course_utils.precision",
            "from course_utils.distributed import rank",
            ["distributed.rank, which is not before"],
        ),
        ("course_utils.plots", "from course_utils import nonsense", ["nonsense, which is not before plots"]),
        ("course_utils.train", "import course_utils", ["imports course_utils, which is not before train"]),
        ("course_utils.novelty", "", ["novelty has no place"]),
        ("course_utils.evaluate.probes", "from course_utils.evaluate._inputs import a\nfrom .scores import b", []),
        ("course_utils.evaluate.probes", "from course_utils.train import fit\nimport torch, course", []),
        ("course_utils.cli", "def f():\n    from course_utils.doctor import examine", []),
    ],
)
def test_the_check_finds_an_import_against_the_flow_wherever_it_stands(module, source, found):
    complaints = against_the_flow({module: source})
    assert len(complaints) == len(found)
    for complaint, pattern in zip(complaints, found, strict=True):
        assert pytest.RaisesExc(Exception, match=pattern).matches(Exception(complaint)), complaint


# --- words


def undescribed(module, source):
    """Public functions, classes and methods without a docstring; those of a subclass may go without."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    without = [] if ast.get_docstring(tree) else [module]
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    without += [f"{module}.{node.name}" for node in public if not ast.get_docstring(node)]
    for owner in public:
        if isinstance(owner, ast.ClassDef) and not owner.bases:
            methods = [node for node in owner.body if isinstance(node, kinds) and not node.name.startswith("_")]
            without += [f"{module}.{owner.name}.{node.name}" for node in methods if not ast.get_docstring(node)]
    return without


def test_every_public_function_class_and_method_says_what_it_is():
    public = {name: source for name, source in package().items() if "._" not in name.removesuffix(".__init__")}
    tasks = {f"course_utils.checks.{exercise}" for exercise in EXERCISES}  # there the title of a task says what it is
    public = {name: source for name, source in public.items() if name not in tasks}
    assert not [name for module, source in public.items() for name in undescribed(module, source)]


def test_the_check_of_docstrings_finds_what_has_none():
    source = (
        "def f(): pass\ndef _g(): pass\nclass A:\n    def m(self): pass\n    def _n(self): pass\n"
        "class B(A):\n    '''B.'''\n    def m(self): pass"
    )
    assert undescribed("x", source) == ["x", "x.f", "x.A", "x.A.m"]


def called_in_notebooks():
    """(name, object) of the functions and classes that the rooms notebooks import from offer.

    An exception is met and not called, and a dataclass comes back from a function, whose example shows it.
    """
    for room in CALLED_IN_NOTEBOOKS:
        module = importlib.import_module(f"course_utils.{room}")
        offered = getattr(module, "__all__", None) or [
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        for name in offered:
            value = getattr(module, name)
            is_class = inspect.isclass(value)
            made = is_class and (issubclass(value, Exception) or hasattr(value, "__dataclass_fields__"))
            if not name.startswith("_") and not made and (is_class or inspect.isfunction(value)):
                yield f"{room}.{name}", value


def has_example(value):
    own = [value.__doc__] + [getattr(part, "__doc__", None) for part in vars(value).values() if inspect.isclass(value)]
    return any(">>>" in text for text in own if isinstance(text, str))


@pytest.mark.parametrize(
    ("name", "value"), list(called_in_notebooks()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_what_notebooks_call_has_an_example_that_the_doctests_run(name, value):
    assert has_example(value) or name.split(".")[-1] in WITHOUT_EXAMPLE


def test_the_check_of_examples_looks_at_real_names_and_finds_what_has_none():
    names = [name for name, _ in called_in_notebooks()]
    assert {"data.load", "losses.nt_xent", "methods.SimCLR", "train.fit", "plots.show"} <= set(names)
    assert {name.split(".")[0] for name in names} == set(CALLED_IN_NOTEBOOKS)
    assert not has_example(has_example)
    assert not has_example(type("A", (), {"__doc__": "A.", "m": lambda self: None}))
    assert has_example(type("A", (), {"m": called_in_notebooks, "n": property(doc=">>> 1")}))
