"""What every notebook keeps. A rule takes a notebook and its path, returns complaints, and says its reason.

`python tests/notebooks/rules.py notebooks/*/*.ipynb` lists the complaints about notebooks while one writes them.
"""

import ast
import itertools
import re
import statistics
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat.validator import iter_validate

CLAIM_MIME = "application/vnd.course.claim+json"
TAGS = {"parameters", "nbval-ignore-output"}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
CLOSING = ["Take-aways", "Check yourself", "Further reading", "Next"]
HTML = {"details", "summary", "br", "sub", "sup"}

MEASURED = (
    "accuracy|error|loss|score|AUC|F1|R2|R²|MSE|NMI|ARI|purity|silhouette|similarity|correlation|alignment|uniformity|"
    "RankMe|recall|precision|perplexity"
)
BETWEEN = (
    "is|was|are|were|of|at|to|from|by|about|around|only|just|roughly|nearly|almost|over|under|near|above|below|"
    "reaches|reached|falls|fell|rises|rose|drops|dropped|stays|gives|gets"
)
SORTS = "probe|test|train|training|validation|linear|mean"
TYPED_RESULTS = {
    "a percentage": r"\d\s?%|\d (?:percent|per cent)\b",
    "a measured decimal": rf"(?i)\b(?:{MEASURED})\b\s*(?:(?:\b(?:{BETWEEN})\b|[=≈~:(*])\s*){{0,5}}\d*\.\d+",
    "a decimal before what it measures": rf"(?i)\d*\.\d+\**\s+(?:(?:{SORTS})\s+)*(?:{MEASURED})\b",
}
TELLTALE = {
    "a warning": r"\b(?:[A-Z]\w*)?Warning:|\bWARNING\b",
    "a traceback": r"Traceback \(most recent call last\)",
    "an absolute path": r"(?<![\w.<~-])/(?:home|root|tmp|Users|usr|opt|var|mnt|private|work|content)/|\b[C-H]:\\",
    "a progress bar": r"it/s\b|s/it\b|\d%\|| \[\d\d:\d\d[<,]|FloatProgress|IntProgress|\r(?!\n)",
    "a timing": r"(?<![\w.])\d+\.\d+ ?(?:s|ms|µs|ns|secs?|seconds|minutes)\b"
    r"|(?<![\w.])\d+ (?:s|ms|µs|ns|secs?)\b(?!\.\w)|\b(?:Wall|CPU) times?:",
    "an object's repr": r"<Figure |<Axes|<matplotlib\.|<function |<bound method |<module |<generator object |Axes\("
    r"|\bText\(\d| at 0x[0-9a-fA-F]+",
}


# --- what a reader meets


def opens_with_the_question(notebook, path):
    """A reader decides in the first cell: what is asked, what they will be able to do, what it needs and takes."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown":
        return ["the first cell must be Markdown"]
    complaints = []
    if not re.match(r"# \S", first.source):
        complaints.append("the first cell must begin with '# Title'")
    if not re.search(r"\*\*[^*]*\?\*\*", first.source):
        complaints.append("the first cell must ask its question in bold: '**…?**'")
    objectives = _objectives(first.source)
    if objectives is None or not 1 <= objectives <= 5:
        found = "nothing" if objectives is None else objectives
        complaints.append(
            f"'After this notebook you can' (or exercise) must be followed by 1 to 5 bullets, found {found}"
        )
    for label in ("Before this", "Reading time", "Run time", "Data"):
        either = label.replace("Reading", "(?:Reading|Working)")  # an exercise takes working time
        if not re.search(rf"(?m)(?:^|\|)[ *>-]*{either}\b", first.source):
            complaints.append(f"the first cell must name '{label}', at the start of a line or of a table's cell")
    return complaints


def closes_with_what_to_keep(notebook, path):
    """The end is what is remembered: take-aways, questions to test oneself, the sources, and where to go on."""
    text = "\n\n".join(cell.source for _, cell in _cells(notebook, "markdown"))
    headings = [title for level, title in _headings(text) if level == 2][-4:]
    if headings != CLOSING:
        return [
            f"the last four '##' headings must be {', '.join(CLOSING)}; they are {', '.join(headings) or 'missing'}"
        ]
    complaints = []
    sections = dict(zip(CLOSING, re.split(r"(?m)^## (?:" + "|".join(CLOSING) + r")\s*$", text)[-4:], strict=True))
    if not sections["Take-aways"].strip():
        complaints.append("'Take-aways' is empty")
    folded = re.findall(r"(?s)<details>(.*?)</details>", sections["Check yourself"])
    if len(folded) < 3:
        complaints.append(f"'Check yourself' needs at least 3 <details>, found {len(folded)}")
    for fold in folded:
        found = re.fullmatch(r"(?s)\s*<summary>(.*?)</summary>(.*)", fold)
        if not found or not re.sub(r"<[^>]*>", "", found[1]).strip().endswith("?"):
            complaints.append(f"a <details> must begin with a question, '<summary>…?</summary>': {_short(fold)}")
        elif not found[2].strip():
            complaints.append(f"a question without an answer: {_short(found[1])}")
        elif not re.match(r"[ \t]*\n[ \t]*\n", found[2]):
            complaints.append(f"an empty line must follow </summary>, or Markdown is not rendered: {_short(found[1])}")
    if not re.search(r"https?://[^\s)>]+", sections["Further reading"]):
        complaints.append("'Further reading' needs at least one link")
    if not any(re.search(r"(?:\.ipynb|README\.md)$", target) for target in _relative(sections["Next"])):
        complaints.append("'Next' needs a relative link to a notebook or to README.md")
    return complaints


def prose_leads(notebook, path):
    """Code without words beside it is read by nobody: of three cells in a row at least one is text."""
    kinds = [cell.cell_type for cell in notebook.cells]
    alone = [i for i, kind in enumerate(kinds) if kind == "code" and "markdown" not in kinds[max(0, i - 2) : i]]
    return [f"cell {i}: no Markdown in the two cells before it" for i in alone]


def results_are_not_typed(notebook, path):
    """A number typed into the text is wrong on the next machine: what is measured is claimed. Settings go in `code`."""
    complaints = []
    for i, cell in _cells(notebook, "markdown"):
        prose = _prose(cell.source)
        for kind, pattern in TYPED_RESULTS.items():
            complaints += [f"cell {i}: {kind} in the text: {_around(prose, m)}" for m in re.finditer(pattern, prose)]
        for table in re.findall(r"(?m)^\|.*(?:\n\|.*)+", prose):
            header, *rows = table.split("\n")
            if re.search(rf"(?i)\b(?:{MEASURED})\b", header):
                typed = [row for row in rows if re.search(r"\|[ *]*\d*\.\d+[ *]*\|", row)]
                complaints += [f"cell {i}: a table of results typed by hand: {_short(row)}" for row in typed]
    return complaints


def headings_make_an_outline(notebook, path):
    """Screen readers and the table of contents navigate by headings: one title, no level skipped."""
    found = [(i, *heading) for i, cell in _cells(notebook, "markdown") for heading in _headings(cell.source)]
    complaints = [f"cell {i}: a second '# ' heading: {title}" for i, level, title in found[1:] if level == 1]
    for (_, before, _), (i, level, title) in itertools.pairwise(found):
        if level > before + 1:
            complaints.append(f"cell {i}: heading level {level} follows level {before}: {title}")
    return complaints


def text_is_plain_markdown(notebook, path):
    """It must read the same in JupyterLab, on the web and in Colab: no directives, and HTML only to fold."""
    complaints = []
    for i, cell in _cells(notebook, "markdown"):
        if re.search(r"(?m)^\s*:{3,}|^\s*(?:`{3,}|~{3,})\s*\{|\{[a-z][\w:-]*\}`", cell.source):
            complaints.append(f"cell {i}: a directive or role, which only some readers render")
        tags = re.findall(r"</?([A-Za-z][A-Za-z0-9]*)(?=[\s/>])|<(!--)", _prose(cell.source, keep_html=True))
        strange = sorted({name or comment for name, comment in tags if name.lower() not in HTML})
        if strange:
            complaints.append(f"cell {i}: HTML other than {', '.join(sorted(HTML))}: {', '.join(strange)}")
    return complaints


def links_lead_somewhere(notebook, path):
    """A broken link is a reader lost; a relative one can be checked without the network."""
    complaints = []
    for i, cell in _cells(notebook, "markdown"):
        for target in _relative(cell.source):
            if target.startswith("/") or not (path.parent / target).exists():
                complaints.append(f"cell {i}: the link {target} leads nowhere")
    return complaints


def pictures_have_words(notebook, path):
    """Who cannot see a figure hears its alternative text, and everyone reads the finding below it."""
    complaints, seen = [], set()
    for i, cell in _cells(notebook, "code"):
        pictures = [
            (output, kind) for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")
        ]
        for output, kind in pictures:
            alt = output.metadata.get(kind, {}).get("alt", "")
            if len(alt) < 20 or not alt.endswith("."):
                complaints.append(f"cell {i}: alternative text must be a sentence with its full stop, got {alt!r}")
            elif alt in seen:
                complaints.append(f"cell {i}: alternative text used twice: {_short(alt)}")
            seen.add(alt)
        after = notebook.cells[i + 1].cell_type if i + 1 < len(notebook.cells) else None
        if pictures and after != "markdown":
            complaints.append(f"cell {i}: a figure must be followed by a Markdown cell that says what was found")
    return complaints


# --- what a reader runs


def imports_come_first(notebook, path):
    """What a notebook needs is seen, and fails, at once: every import is in the first code cell."""
    cells = _cells(notebook, "code")
    if not cells or not _imports(cells[0][1]):
        return ["the first code cell must hold the imports"]
    return [f"cell {i}: an import outside the first code cell" for i, cell in cells[1:] if _imports(cell)]


def parameters_have_their_cell(notebook, path):
    """`course run --data --seed` inserts its values after this cell, so it sets DATA and SEED and nothing else."""
    cells = _cells(notebook, "code")
    tagged = [place for place, (_, cell) in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    if tagged != [1]:
        return [f"the second code cell, and no other, must carry the tag 'parameters'; tagged are {tagged or 'none'}"]
    complaints = []
    set_here = {}
    for node in _tree(cells[1][1]).body:
        plain = isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        if not plain or not isinstance(node.value, ast.Constant):
            complaints.append(f"the parameters cell must only assign plain values: {_short(ast.unparse(node))}")
        else:
            set_here[node.targets[0].id] = type(node.value.value)
    if not complaints and set_here != {"DATA": str, "SEED": int}:
        complaints.append(f"the parameters cell must set DATA to a name and SEED to a whole number, it sets {set_here}")
    if {node.id for node in ast.walk(_tree(cells[0][1])) if isinstance(node, ast.Name)} & {"DATA", "SEED"}:
        complaints.append("DATA or SEED is used before the parameters cell")
    return complaints


def cells_are_short(notebook, path):
    """One idea a cell: at most 30 lines of at most 120 characters, and half of the cells have at most 15."""
    complaints, lengths = [], [len(cell.source.splitlines()) for _, cell in _cells(notebook, "code")]
    for (i, cell), length in zip(_cells(notebook, "code"), lengths, strict=True):
        if length > 30:
            complaints.append(f"cell {i}: {length} lines of code, 30 are allowed")
        complaints += [f"cell {i}: over 120 characters: {_short(x)}" for x in cell.source.splitlines() if len(x) > 120]
    if lengths and statistics.median(lengths) > 15:
        complaints.append(f"the median code cell has {statistics.median(lengths):g} lines, 15 are allowed")
    return complaints


def code_is_plain_python(notebook, path):
    """Code can be lifted out of the notebook: no magics, no shell, no silenced warnings; what tools need is in tags."""
    complaints = []
    for i, cell in enumerate(notebook.cells):
        strange = sorted(set(cell.metadata.get("tags", [])) - TAGS)
        if strange:
            complaints.append(f"cell {i}: tags other than {', '.join(sorted(TAGS))}: {', '.join(strange)}")
    for i, cell in _cells(notebook, "code"):
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            complaints.append(f"cell {i}: not plain Python (a magic or a shell command?): {_short(error.text or '')}")
        if found := re.search(
            r"\b(?:filterwarnings|simplefilter|get_ipython)\b|#\s*(?:NBVAL|PYTEST_VALIDATE)_\w+", cell.source
        ):
            complaints.append(f"cell {i}: {found[0]} has no place in a notebook")
    return complaints


def every_cell_was_run_in_order(notebook, path):
    """Outputs come from one clean run. nbval compares nothing where the count is null, so null hides a failure."""
    counts = [cell.execution_count for _, cell in _cells(notebook, "code")]
    return (
        [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts must be 1, 2, 3, …, they are {counts}"]
    )


def outputs_are_the_same_everywhere(notebook, path):
    """A path, a time or a memory address is noise in every diff; a warning or an error is a fault shown as a fact."""
    complaints = []
    for i, cell in _cells(notebook, "code"):
        for output in cell.outputs:
            if output.output_type == "error":
                complaints.append(f"cell {i}: an error: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                complaints.append(f"cell {i}: output on stderr: {_short(output.text)}")
            for text in _texts(output):
                found = ((kind, re.search(pattern, text)) for kind, pattern in TELLTALE.items())
                complaints += [
                    f"cell {i}: {kind} in the output: {_around(text, match)}" for kind, match in found if match
                ]
    return complaints


def numbers_are_claimed(notebook, path):
    """The text may rely only on what the notebook checks as it runs, and only where the claim is about that data."""
    made = [
        output.data[CLAIM_MIME]
        for _, cell in _cells(notebook, "code")
        for output in cell.outputs
        if CLAIM_MIME in output.get("data", {})
    ]
    complaints = [] if made else ["no claim: state at least one result with claim(…)"]
    complaints += [f"a claim that does not hold: {c['text']}" for c in made if not c["holds"]]
    complaints += [f"a claim that is only reported: {c['text']}" for c in made if not c["asserted"]]
    nodes = [(i, node) for i, cell in _cells(notebook, "code") for node in ast.walk(_tree(cell))]
    about_data = []
    for i, node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "claim":
            about_data += [(i, keyword.value) for keyword in node.keywords if keyword.arg == "data"]
    complaints += [
        f"cell {i}: claim(…, data={ast.unparse(value)}): write data=DATA, or leave it out where no data is measured"
        for i, value in about_data
        if ast.unparse(value) != "DATA"
    ]
    uses_data = any(
        isinstance(node, ast.Name) and node.id == "DATA" and isinstance(node.ctx, ast.Load) for _, node in nodes
    )
    if made and uses_data and not about_data:
        complaints.append("the notebook uses DATA and no claim says data=DATA: another data set would break it")
    return complaints


# --- what the file is


def budget_is_kept(notebook, path):
    """Every reader has a laptop: a minute of two cores and 2 GiB, as recorded by the run that made the outputs.

    Processor seconds are counted, since what else a machine does stretches the others.
    """
    course = notebook.metadata.get("course", {})
    complaints = []
    for name, most in {"cpu_seconds": 120, "peak_mib": 2048}.items():
        value = course.get(name)
        if not isinstance(value, int) or value < 0:
            complaints.append(
                f"metadata.course.{name} is missing: execute with python -m course_utils.notebooks execute"
            )
        elif value > most:
            complaints.append(f"{name} is {value}, {most} are allowed")
    size = len(nbformat.writes(notebook).encode())
    return complaints + ([f"the file has {size:,} bytes, 1,000,000 are allowed"] if size > 1_000_000 else [])


def metadata_is_normal(notebook, path):
    """Metadata that editors leave behind makes diffs of nothing; `course_utils.notebooks execute` writes this set."""
    expected = {"course": notebook.metadata.get("course"), "kernelspec": KERNEL, "language_info": {"name": "python"}}
    expected |= {name: value for name, value in notebook.metadata.items() if name == "widgets"}  # what sliders show
    wrong = sorted(k for k in expected.keys() | notebook.metadata.keys() if notebook.metadata.get(k) != expected.get(k))
    complaints = [f"metadata.{name} is not what execute writes" for name in wrong]
    known = {"tags", "nbgrader"} if path.resolve().parent.name == "exercises" else {"tags"}
    for i, cell in enumerate(notebook.cells):
        if extra := sorted(set(cell.metadata) - known):
            complaints.append(f"cell {i}: metadata other than tags: {', '.join(extra)}")
    return complaints


def name_is_numbered(notebook, path):
    """Files list in the order they are read: NN_snake_case.ipynb, no number twice in a folder."""
    if not re.fullmatch(r"\d\d(?:_[a-z0-9]+)+\.ipynb", path.name):
        return [f"the file must be called NN_snake_case.ipynb, not {path.name}"]
    twins = sorted(p.name for p in path.parent.glob(f"{path.name[:2]}_*.ipynb") if p.name != path.name)
    return [f"the number {path.name[:2]} is also that of {', '.join(twins)}"] if twins else []


def file_is_valid(notebook, path):
    """Tools and diffs find a cell by its id: notebook format 4.5, valid, every id there and used once."""
    complaints = [_short(error.message) for error in iter_validate(notebook)]
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        complaints.append(f"the notebook format must be 4.5, it is {notebook.nbformat}.{notebook.nbformat_minor}")
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids:
        complaints.append("a cell has no id")
    twice = sorted({i for i in ids if i is not None and ids.count(i) > 1})
    return complaints + [f"two cells have the id {i}" for i in twice]


RULES = [
    opens_with_the_question,
    closes_with_what_to_keep,
    prose_leads,
    results_are_not_typed,
    headings_make_an_outline,
    text_is_plain_markdown,
    links_lead_somewhere,
    pictures_have_words,
    imports_come_first,
    parameters_have_their_cell,
    cells_are_short,
    code_is_plain_python,
    every_cell_was_run_in_order,
    outputs_are_the_same_everywhere,
    numbers_are_claimed,
    budget_is_kept,
    metadata_is_normal,
    name_is_numbered,
    file_is_valid,
]
EXERCISE_RULES = [  # an exercise is checked by its own checks, and runs on the data that its tasks name
    rule for rule in RULES if rule not in (closes_with_what_to_keep, parameters_have_their_cell)
]


# --- reading cells


def _cells(notebook, kind):
    return [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == kind]


def _tree(cell) -> ast.Module:
    """The cell's syntax tree; an empty one where it is no Python, of which another rule complains."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.parse("")


def _imports(cell) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(_tree(cell)))


def _texts(output):
    data = output.get("data", {})
    return [output.get("text", ""), *(text for kind, text in data.items() if kind.startswith("text/"))]


def _without_code(source: str) -> str:
    """Markdown without its fenced blocks and code spans."""
    source = re.sub(r"(?ms)^[ \t]*(`{3,}|~{3,}).*?^[ \t]*\1[`~]*[ \t]*$", "", source)
    return re.sub(r"(?s)(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", " ", source)


def _prose(source: str, *, keep_html: bool = False) -> str:
    """The words of a Markdown cell: without code, maths, addresses, and HTML unless it is kept."""
    text = re.sub(r"(?s)\$\$.+?\$\$", " ", _without_code(source))
    text = re.sub(r"(?<![\\$])\$(?!\s)(?:[^$\n]|\n(?!\n))+?(?<!\s)\$(?!\d)", " ", text)
    text = re.sub(r"(?m)\]\([^)\n]*\)|^\[[^\]\n]+\]:.*$|<?https?://[^\s>)]+>?", "]", text)
    return text if keep_html else re.sub(r"</?[A-Za-z][^>]*>", "", text)


def _headings(source: str):
    return [(len(marks), title) for marks, title in re.findall(r"(?m)^(#{1,6}) +(.+?)\s*$", _without_code(source))]


def _objectives(source: str) -> int | None:
    """How many bullets follow 'After this notebook you can', up to the first line of another kind."""
    begin = re.search(r"After this (?:notebook|exercise) you can", source)
    if begin is None:
        return None
    bullets = 0
    for line in source[begin.end() :].splitlines()[1:]:
        if re.match(r"[-*+] |\d+\. ", line):
            bullets += 1
        elif line.strip() and not line.startswith("  "):
            break
    return bullets


def _relative(source: str) -> list[str]:
    """The targets of relative links, without their fragments."""
    text = _without_code(source)
    found = re.findall(r"\]\((?:<([^>\n]*)>|([^)\s]+))|(?m:^)\[[^\]\n]+\]:\s*(\S+)", text)
    targets = ["".join(groups) for groups in found]
    targets = [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#", target)]
    return [unquote(target.split("#")[0]) for target in targets]


def _short(text: str, width: int = 60) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _around(text: str, match: re.Match) -> str:
    return _short(text[max(0, match.start() - 20) : match.end() + 20])


def main(paths: list[str]) -> int:
    """List the complaints about each notebook; the exit status says whether there are any."""
    total = 0
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        rules = EXERCISE_RULES if path.resolve().parent.name == "exercises" else RULES
        complaints = [f"{rule.__name__}: {line}" for rule in rules for line in rule(notebook, path)]
        print(f"{path}: {len(complaints)} complaints", *complaints, sep="\n  ")
        total += len(complaints)
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
