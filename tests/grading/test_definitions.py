"""A notebook's definitions are found and run; its experiments never are."""

import ast
import types

import pytest

from course_utils.grading.definitions import find, run


def kept(*cells):
    return [ast.unparse(definition.node) for definition in find(list(cells)).definitions]


def loaded(*cells):
    module = types.ModuleType("submission")
    found = find(list(cells))
    return module, found.problems + run(found, module)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from torch.nn import functional as F",
        "def f(x):\n    return x",
        "async def f(x):\n    return x",
        "@decorate\ndef f(x):\n    return x",
        "class A(B, metaclass=M):\n    k = f()",
        "k = 3",
        "k = -2 * 3 ** 2",
        "a, (b, c) = (1, (2, 3))",
        "a = b = 'text'",
        "k: float = 0.5",
        "names = ['a', {'b': 1, **more}]",
        "relu = F.relu",
        "square = lambda x: x ** 2",
        "try:\n    import a\nexcept ImportError:\n    a = None",
    ],
)
def test_definitions_are_kept(source):
    assert kept(source) == [source]


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "check.assign(assign)",
        "model = fit(x, steps=100)",
        "k = [f(i) for i in x]",
        "k: int",
        "x[0] = 1",
        "a.b = 1",
        "k += 1",
        "for i in x:\n    pass",
        "while True:\n    pass",
        "with open(p) as f:\n    pass",
        "if True:\n    k = 1",
        "try:\n    train()\nexcept Exception:\n    pass",
        "k = -f()",
        "k = f().a",
        "k = x[f()]",
        "k = (1, f())",
        "k = {'a': f()}",
        "k = (y := f())",
        "'a docstring'",
        "del k",
        "assert f()",
        "%%bash\ndef f(): pass",
        "%matplotlib inline\n!ls",
    ],
)
def test_experiments_are_dropped(source):
    assert kept(source) == []


@pytest.mark.parametrize(
    "source",
    ["%matplotlib inline\n{}", "%%time\n{}", "!pip install x\n{}", "{}\nf?", "files = !ls\n{}", "a = %time f(1)\n{}"],
)
def test_magics_cost_nothing(source):
    function = "def f(x):\n    return x % 2"
    assert function in kept(source.format(function))


def test_a_magic_sign_in_a_text_or_an_expression_stays():
    source = 'def f(x):\n    return (x\n        % 2, """\n%time\n!ls""")'
    module, problems = loaded(source)
    assert module.f(3) == (1, "\n%time\n!ls")
    assert problems == []


def test_a_broken_cell_costs_what_it_defines_and_says_where():
    module, problems = loaded("def f(): return 1", "def g(x:\n  pass", "def h(): return f() + 1")
    assert module.h() == 2
    assert not hasattr(module, "g")
    assert len(problems) == 1
    assert problems[0].startswith("code cell 2 is not Python")


@pytest.mark.parametrize("source", ["x = '\0'", "x = " + "(" * 5000 + ")" * 5000, "-" * 200_000 + "1"])
def test_text_that_python_cannot_parse_costs_its_cell(source):
    module, problems = loaded(source, "def f(): return 1")
    assert module.f() == 1
    assert "code cell 1 is not Python" in problems[0]


def test_a_definition_that_fails_costs_itself_and_the_last_one_holds():
    module, problems = loaded(
        "import nowhere_to_be_found\ndef f(): return 1\nk = undefined\nk = 4", "def f(): return k"
    )
    assert module.f() == 4
    assert problems == [
        "code cell 1 line 1 stops with ModuleNotFoundError",
        "code cell 1 line 3 stops with NameError",
    ]


def test_annotations_of_the_future_hold_in_the_cells_after():
    module, problems = loaded("from __future__ import annotations", "def f(x: Undefined): return x")
    assert problems == []
    assert module.f(1) == 1
