"""Every notebook keeps every rule, and every rule lets a good notebook pass and finds the faults it is there for."""

import copy
import runpy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[2]
MODULE = runpy.run_path(str(Path(__file__).with_name("rules.py")))
RULES, EXERCISE_RULES = MODULE["RULES"], MODULE["EXERCISE_RULES"]
NAMES = {rule.__name__: rule for rule in RULES}
NOTEBOOKS = [p for p in sorted((ROOT / "notebooks").rglob("[!.]*.ipynb")) if p.parent.name != "05_exercises"]
CLAIM = "application/vnd.course.claim+json"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "notebooks")))
def test_every_notebook_keeps_every_rule(path, rule):
    complaints = rule(nbformat.read(path, as_version=4), path)
    assert not complaints, "\n".join([rule.__doc__, *complaints])


@pytest.mark.parametrize("rule", EXERCISE_RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", sorted((ROOT / "exercises").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_exercise_keeps_the_rules_that_are_meant_for_it(path, rule):
    complaints = rule(nbformat.read(path, as_version=4), path)
    assert not complaints, "\n".join([rule.__doc__, *complaints])


# --- the rules themselves, on a notebook made here

OPENING = """# What a mean is

**Where do ten numbers balance?**

After this notebook you can

- compute a mean
- say what it minimises,
  and why

| Before this | Reading time | Run time | Data |
| --- | --- | --- | --- |
| [Start](../README.md) | 5 min | 1 min | ten numbers |
"""
PROSE = """## Balance

The mean $\\mu = 0.5 \\cdot 100\\%$ has error of `0.25`; at temperature 0.5 and 3.5 times the width, see
[the data](../data/x%20y.csv#rows) or <https://example.org/93%>.

```python
print("# accuracy of 0.93, 100 %")
```

### Why <br> twice

| layer | mixing |
| --- | --- |
| first | 0.25 |
"""
CHECK = """## Check yourself

<details><summary>Is the mean <sub>x</sub> unique?</summary>

Yes.

</details>
<details>
<summary>Does it move?</summary>

With every number.
</details>
<details><summary>Is it robust?</summary>

No.
</details>
"""
END = "## Further reading\n\n[A paper](https://doi.org/10.1/x).\n\n## Next\n\n[The map](../README.md)."


def claimed(**changes):
    record = {"text": "the mean is small", "value": 0.5, "wanted": "< 1", "holds": True, "asserted": True} | changes
    return new_output(
        "display_data", {"text/plain": "the mean is small: < 1 ✓", "text/html": "<b>0.5</b>", CLAIM: record}
    )


def figure(alt="Ten bars of equal height."):
    return new_output("display_data", {"image/png": "", "text/plain": alt}, metadata={"image/png": {"alt": alt}})


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def good():
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("import numpy as np\n\nfrom course_utils.claims import claim", execution_count=1),
        new_code_cell(
            'DATA = "glyphs"\nSEED = 0  # any', execution_count=2, metadata={"tags": ["parameters"]}, outputs=[]
        ),
        new_markdown_cell(PROSE),
        new_code_cell(
            "x = load(DATA, seed=SEED)\nx.shape",
            execution_count=3,
            outputs=[printed("glyphs: 10 rows, 3 s.d., 0s and 1s, a 5x grid, at/home/now\n"), figure()],
            metadata={"tags": ["nbval-ignore-output"]},
        ),
        new_markdown_cell("They are equal."),
        new_code_cell(
            'claim("the mean is small", (7 % 4) / 6, below=1, data=DATA)', execution_count=4, outputs=[claimed()]
        ),
        new_markdown_cell("## Take-aways\n\n- It balances."),
        new_markdown_cell(CHECK),
        new_markdown_cell(END),
    ]
    return new_notebook(
        cells=cells,
        metadata={
            "course": {"bf16": True, "cpu_seconds": 70, "peak_mib": 2048, "run_seconds": 60},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )


@pytest.fixture
def path(tmp_path):
    for name in ("README.md", "data/x y.csv", "01_first/02_next.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "01_first" / "01_what_a_mean_is.ipynb"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_every_rule_and_stays_as_it_was(rule, path):
    notebook = good()
    before = copy.deepcopy(notebook)
    assert rule(notebook, path) == []
    assert notebook == before


def test_every_rule_gives_its_reason_and_has_a_fault_that_it_finds():
    assert all(rule.__doc__ and rule.__doc__.strip().endswith(".") for rule in RULES)
    assert {rule for rule, *_ in FAULTS} == NAMES.keys()


def swap(cell, old, new):
    def change(notebook):
        assert old in notebook.cells[cell].source
        notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new, 1)

    return change


def source(cell, text):
    return lambda notebook: notebook.cells[cell].update(source=text)


def outputs(*made, cell=6):
    return lambda notebook: notebook.cells[cell].update(outputs=list(made))


def metadata(*keys, value):
    def change(notebook):
        node = notebook.metadata
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


def tags(cell, *given):
    return lambda notebook: notebook.cells[cell].metadata.update(tags=list(given))


def count(cell, number):
    return lambda notebook: notebook.cells[cell].update(execution_count=number)


def drop(cell):
    return lambda notebook: notebook.cells.pop(cell)


def says(text):
    return source(5, text)


FAULTS = [
    ("opens_with_the_question", drop(0), "first cell must be Markdown"),
    ("opens_with_the_question", swap(0, "# What", "What"), "# Title"),
    ("opens_with_the_question", swap(0, "?**", ".**"), "question in bold"),
    ("opens_with_the_question", swap(0, "**Where", "Where"), "question in bold"),
    ("opens_with_the_question", swap(0, "After this notebook you can", "Aims"), "found nothing"),
    ("opens_with_the_question", swap(0, "- compute a mean\n- say", "say"), "found 0"),
    ("opens_with_the_question", swap(0, "- compute a mean\n", "- x\n" * 5), "found 6"),
    ("opens_with_the_question", swap(0, "Before this", "First"), "'Before this'"),
    ("opens_with_the_question", swap(0, "Reading time", "Time"), "'Reading time'"),
    ("opens_with_the_question", swap(0, "Run time", "Time"), "'Run time'"),
    ("opens_with_the_question", swap(0, "| Data |", "| Numbers |"), "'Data'"),
    ("closes_with_what_to_keep", drop(7), "last four"),
    ("closes_with_what_to_keep", swap(9, "## Next", "## Then"), "last four"),
    ("closes_with_what_to_keep", lambda nb: nb.cells.append(new_markdown_cell("## More")), "last four"),
    ("closes_with_what_to_keep", swap(7, "- It balances.", ""), "'Take-aways' is empty"),
    ("closes_with_what_to_keep", swap(8, "<details><summary>Is it robust?</summary>", ""), "at least 3.*found 2"),
    ("closes_with_what_to_keep", swap(8, "<summary>Does it move?</summary>", "Moves."), "begin with a question.*Moves"),
    ("closes_with_what_to_keep", swap(8, "robust?", "robust"), "begin with a question.*robust"),
    ("closes_with_what_to_keep", swap(8, "With every number.", ""), "without an answer: Does it move"),
    ("closes_with_what_to_keep", swap(8, "summary>\n\nNo", "summary>\nNo"), "empty line.*Is it robust"),
    ("closes_with_what_to_keep", swap(9, "(https://doi.org/10.1/x)", ""), "at least one link"),
    ("closes_with_what_to_keep", swap(9, "(../README.md)", "(https://example.org/README.md)"), "relative link"),
    ("closes_with_what_to_keep", swap(9, "(../README.md)", "(../data/x%20y.csv)"), "relative link"),
    ("prose_leads", drop(3), "cell 3: no Markdown"),
    ("prose_leads", drop(0), "cell 0: no Markdown"),
    ("results_are_not_typed", says("It reaches 93 % of them."), "cell 5: a percentage.*93 %"),
    ("results_are_not_typed", says("It reaches 93.5% of them."), "a percentage.*5%"),
    ("results_are_not_typed", says("So 93 per cent are right."), "a percentage"),
    ("results_are_not_typed", says("The accuracy of 0.93 is high."), "a measured decimal.*0.93"),
    ("results_are_not_typed", says("Its Loss falls to about **0.12**."), "a measured decimal"),
    ("results_are_not_typed", says("The silhouette (.41) is low."), "a measured decimal"),
    ("results_are_not_typed", says("We see 0.93 test accuracy."), "a decimal before"),
    (
        "results_are_not_typed",
        says("|method|probe accuracy|\n|---|---|\n|SimCLR| **0.93** |"),
        r"typed by hand: \|SimCLR",
    ),
    ("results_are_not_typed", says("It costs 5 $ and then 93 % or 6 $."), "a percentage"),
    ("headings_make_an_outline", says("# Again"), "cell 5: a second '# ' heading: Again"),
    ("headings_make_an_outline", swap(3, "## Balance", "### Balance"), "level 3 follows level 1: Balance"),
    ("text_is_plain_markdown", says(":::{note}\nMind.\n:::"), "cell 5: a directive"),
    ("text_is_plain_markdown", says("```{note}\nMind.\n```"), "a directive"),
    ("text_is_plain_markdown", says("See {ref}`there`."), "a directive or role"),
    ("text_is_plain_markdown", says('<img src="x.png">'), "HTML other than.*: img"),
    ("text_is_plain_markdown", says("<div>\n\nx\n\n</div>"), ": div"),
    ("text_is_plain_markdown", says("<!-- hidden -->"), ": !--"),
    ("links_lead_somewhere", says("[there](03_missing.ipynb#part)"), "cell 5: the link 03_missing.ipynb"),
    ("links_lead_somewhere", says("![a plot](plot.png)"), "plot.png"),
    ("links_lead_somewhere", says("[there][1]\n\n[1]: gone.md"), "gone.md"),
    ("links_lead_somewhere", says("[there](/)"), "the link /"),
    ("pictures_have_words", outputs(figure("")), "cell 6: alternative text must be.*''"),
    ("pictures_have_words", outputs(figure("Ten equal bars.")), "must be a sentence"),
    ("pictures_have_words", outputs(figure("Ten bars of equal height, it seems")), "full stop"),
    ("pictures_have_words", outputs(new_output("display_data", {"image/svg+xml": "<svg/>"})), "must be a sentence"),
    ("pictures_have_words", outputs(figure()), "used twice: Ten bars"),
    ("pictures_have_words", drop(5), "cell 4: a figure must be followed"),
    ("pictures_have_words", lambda nb: nb.update(cells=nb.cells[:5]), "cell 4: a figure must be followed"),
    ("imports_come_first", source(1, "np = 1"), "first code cell must hold the imports"),
    ("imports_come_first", source(4, "def f():\n    import os"), "cell 4: an import outside"),
    ("imports_come_first", source(6, "from os import path"), "cell 6: an import outside"),
    ("parameters_have_their_cell", tags(2), "tagged are none"),
    ("parameters_have_their_cell", tags(4, "parameters"), r"tagged are \[1, 2\]"),
    (
        "parameters_have_their_cell",
        lambda nb: nb.cells.insert(1, new_code_cell("import os")),
        r"tagged are \[2\]",
    ),
    ("parameters_have_their_cell", source(2, 'DATA = "glyphs"'), "SEED to a whole number"),
    ("parameters_have_their_cell", source(2, 'DATA = "glyphs"\nSEED = 0\nN = 3'), "it sets"),
    ("parameters_have_their_cell", source(2, 'DATA = "glyphs"\nSEED = 1.5'), "whole number"),
    ("parameters_have_their_cell", source(2, 'DATA = "glyphs"\nSEED = 0\nprint(DATA)'), r"plain values: print\(DATA\)"),
    (
        "parameters_have_their_cell",
        swap(1, "import claim", "import claim\nnp.random.seed(SEED)"),
        "before the parameters cell",
    ),
    ("cells_are_short", source(4, "x = 1\n" * 31), "cell 4: 31 lines"),
    ("cells_are_short", source(4, f"x = '{'x' * 120}'"), "cell 4: over 120"),
    (
        "cells_are_short",
        lambda nb: [cell.update(source="x = 1\n" * 16) for cell in nb.cells if cell.cell_type == "code"],
        "median code cell has 16",
    ),
    ("code_is_plain_python", source(4, "%matplotlib inline"), "cell 4: not plain Python.*%matplotlib"),
    ("code_is_plain_python", source(4, "!pip install x"), "not plain Python"),
    ("code_is_plain_python", source(4, "%%time\nx = 1"), "not plain Python"),
    ("code_is_plain_python", source(4, "get_ipython().run_line_magic('time', '')"), "get_ipython"),
    ("code_is_plain_python", source(4, 'warnings.filterwarnings("ignore")'), "filterwarnings"),
    ("code_is_plain_python", source(4, 'warnings.simplefilter("ignore")'), "simplefilter"),
    ("code_is_plain_python", source(4, "# NBVAL_IGNORE_OUTPUT\nx = 1"), "NBVAL_IGNORE_OUTPUT"),
    ("code_is_plain_python", tags(4, "raises-exception"), "cell 4: tags other than.*raises-exception"),
    ("code_is_plain_python", tags(3, "hide"), "cell 3: tags other than.*hide"),
    ("every_cell_was_run_in_order", count(4, None), r"\[1, 2, None, 4\]"),
    ("every_cell_was_run_in_order", count(1, 2), r"\[2, 2, 3, 4\]"),
    ("every_cell_was_run_in_order", count(6, 5), r"\[1, 2, 3, 5\]"),
    (
        "outputs_are_the_same_everywhere",
        outputs(new_output("error", ename="ValueError", evalue="no", traceback=[])),
        "cell 6: an error: ValueError: no",
    ),
    ("outputs_are_the_same_everywhere", outputs(printed("hm", "stderr")), "output on stderr: hm"),
    *(
        ("outputs_are_the_same_everywhere", outputs(made), f"cell 6: {kind}")
        for kind, texts in {
            "a warning": ["x.py:3: UserWarning: old", "Warning: hot", "WARNING late"],
            "a traceback": ["Traceback (most recent call last):"],
            "an absolute path": ["in /home/a/b", "'/tmp/x'", "/root/.cache", "C:\\Users\\a", "file:///Users/a"],
            "a progress bar": ["45%|████", "12.1it/s", "3/9 [00:02<00:04,", "FloatProgress(value=0)", "10\r20"],
            "a timing": ["took 12.3 s", "in 5.1ms", "(4 s)", "Wall time: 1", "2.5 seconds"],
            "an object's repr": [
                "<Figure size 700x400>",
                "[<matplotlib.lines.Line2D>]",
                "Axes(0.1,0.2)",
                "<function f>",
                "<generator object g>",
                "<course_utils.Split at 0x7f3a>",
                "Text(0.5, 1.0, 'x')",
            ],
        }.items()
        for text in texts
        for made in (printed(text), new_output("execute_result", {"text/plain": text}, execution_count=4))
    ),
    ("outputs_are_the_same_everywhere", outputs(new_output("display_data", {"text/html": "<i>3.1 s</i>"})), "a timing"),
    ("numbers_are_claimed", outputs(), "no claim"),
    ("numbers_are_claimed", outputs(claimed(holds=False)), "does not hold: the mean is small"),
    ("numbers_are_claimed", outputs(claimed(asserted=False)), "only reported: the mean is small"),
    ("numbers_are_claimed", swap(6, "data=DATA", 'data="glyphs"'), "cell 6: .*write data=DATA"),
    ("numbers_are_claimed", swap(6, ", data=DATA", ""), "uses DATA and no claim"),
    ("numbers_are_claimed", source(6, 'claims.claim("x", 1, above=0, data=other)'), "write data=DATA"),
    ("budget_is_kept", metadata("course", value={}), "cpu_seconds is missing"),
    ("budget_is_kept", metadata("course", "peak_mib", value=2049), "peak_mib is 2049, 2048 are"),
    ("budget_is_kept", metadata("course", "cpu_seconds", value=121), "cpu_seconds is 121, 120 are allowed"),
    ("budget_is_kept", metadata("course", "cpu_seconds", value=None), "cpu_seconds is missing"),
    ("budget_is_kept", outputs(claimed(), printed("x" * 1_000_000)), "bytes, 1,000,000 are allowed"),
    ("metadata_is_normal", metadata("colab", value={}), "metadata.colab is not"),
    ("metadata_is_normal", metadata("kernelspec", "name", value="conda-env"), "metadata.kernelspec"),
    ("metadata_is_normal", metadata("language_info", "version", value="3.12"), "metadata.language_info"),
    ("metadata_is_normal", lambda nb: nb.cells[4].metadata.update(collapsed=True), "cell 4: .*collapsed"),
    ("metadata_is_normal", lambda nb: nb.cells[4].metadata.update(nbgrader={}), "cell 4: .*nbgrader"),
    ("file_is_valid", lambda nb: nb.update(nbformat_minor=4), "must be 4.5, it is 4.4"),
    ("file_is_valid", lambda nb: nb.cells[2].pop("id"), "a cell has no id"),
    ("file_is_valid", lambda nb: nb.cells[2].update(id=nb.cells[3].id), "two cells have the id"),
    ("file_is_valid", lambda nb: nb.cells[2].pop("outputs"), "'outputs' is a required property"),
    ("name_is_numbered", "1_a.ipynb", "NN_snake_case"),
    ("name_is_numbered", "01_What.ipynb", "NN_snake_case"),
    ("name_is_numbered", "01-what.ipynb", "NN_snake_case"),
    ("name_is_numbered", "02_twin.ipynb", "the number 02 is also that of 02_next.ipynb"),
]


@pytest.mark.parametrize(("rule", "fault", "complaint"), FAULTS)
def test_a_rule_finds_its_fault_and_names_it(rule, fault, complaint, path):
    notebook = good()
    if isinstance(fault, str):
        path = path.with_name(fault)
    else:
        fault(notebook)
    found = "\n".join(NAMES[rule](notebook, path))
    assert pytest.RaisesExc(Exception, match=complaint).matches(Exception(found)), found


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("results_are_not_typed", "The error is what `100 %` of $p = 0.93$ leave, at $5 a piece, in [1](x_0.93%)."),
        ("results_are_not_typed", "Accuracy at a temperature of 0.5; loss with weight 0.25; at least three of 0.1."),
        ("results_are_not_typed", "$$\n\\text{accuracy of } 0.93 = 93 \\%\n$$\n\n``a ` 93 %``"),
        ("text_is_plain_markdown", "For $a<b$ and `<img>`, x < y, <https://a.org> and a set {1, 2}: ok::yes"),
        ("links_lead_somewhere", "`[x](gone.md)`, [y](#balance), [z](mailto:a@b.org), [w](<../data/x y.csv>)"),
        ("headings_make_an_outline", "```\n# a comment\n#### deep\n```\n#hashtag"),
        ("code_is_plain_python", "# 100% of a! b"),
    ],
)
def test_what_only_looks_like_a_fault_passes(rule, text, path):
    notebook = good()
    notebook.cells[5].source = text
    assert NAMES[rule](notebook, path) == []


def test_the_rules_are_listed_from_a_terminal(path, capsys):
    main = runpy.run_path(str(Path(__file__).with_name("rules.py")))["main"]
    nbformat.write(good(), path)
    assert main([str(path)]) == 0
    notebook = good()
    notebook.cells[4].execution_count = None
    nbformat.write(notebook, path)
    assert main([str(path)]) == 1
    assert "1 complaints\n  every_cell_was_run_in_order: " in capsys.readouterr().out
