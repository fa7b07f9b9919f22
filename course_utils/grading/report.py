"""What grading wrote: a table, a page a student, a page for the class, and pairs of notebooks that look alike.

`grades.csv` holds numbers alone; `remarks.csv` says why. All text is escaped: a name, too, is a stranger's.
"""

import base64
import csv
import html
import io
import keyword
import re
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from course_utils.grading.submissions import UnreadableError, code_cells, file_name

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} img {{ max-width: 100% }}
th, td {{ text-align: left; padding: .4em .8em; border: 1px solid #ccc }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""
RUN = 12  # tokens that a fingerprint is made of
WINDOW = 8  # of so many fingerprints in a row the least is kept
ENOUGH = 15  # fingerprints that a notebook needs to be compared
ALIKE = 0.8
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run
ROOMS = "checks|losses|cluster|methods|models|evaluate|reduce"
GENERATORS = "glyphs|moving_glyphs|customers"  # of data whose labels are hidden when it is graded
REMARK = re.compile(r"^[^\S\n]*#.*", re.M)
LIBRARIES = re.compile(r"\b(?:sklearn|scipy|umap|torchvision)\b")
ROOM = re.compile(rf"\bcourse_utils\.({ROOMS})\b|\bcourse_utils[^\S\n]+import\b((?:[^\S\n]*\([^)]*)?.*)")
GENERATOR = re.compile(rf"\bcourse_utils\.data\b.*\b(?:{GENERATORS})\b|(?<![\w.])(?:{GENERATORS}|load)\(")
ROUNDABOUT = re.compile(  # ways to a ready-made part, or to the grader, that no answer needs
    r"\bimportlib\b|\b__(?:import|builtins|globals|subclasses)__|\bsys\.modules\b|\bctypes\b|(?<![\w.])(?:exec|eval)(?=\s*\()"
    r"|\bcourse_utils\.(?:calling|grading)\b|\bimport[^\S\n]+course_utils(?![\w.])"
)
READY_NAMES = re.compile(
    rf"^[^\S\n]*from[^\S\n]+(?:sklearn|course_utils\.(?:{ROOMS}))[\w.]*[^\S\n]+import[^\S\n]+(\w.*)", re.M
)
PLAIN = {tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP}


def write(out: Path, results: Sequence, found: Sequence) -> None:
    """Write tables and pages of one exercise to `out`. results: grade.Result; found: submissions.Submission."""
    out = Path(out)
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    stub = stub_of(results[0].exercise)
    pairs = similar({one.student: one.cells for one in found}, stub)
    ready = {one.student: ready_made(one.cells, stub) for one in found}
    _table(out / "grades.csv", _grades(results))
    _table(out / "remarks.csv", _remarks(results))
    _table(out / "similar.csv", [["student", "other", "alike"], *([a, b, f"{part:.2f}"] for a, b, part in pairs)])
    for result in results:
        _put(out / "feedback" / f"{file_name(result.student)}.html", feedback(result))
    _put(out / "summary.html", summary(results, pairs, ready))


def _grades(results: Sequence) -> Iterable[list]:
    names = [task.name for task in results[0].tasks]
    yield ["student", *names, "total", "maximum", "seed", "seconds"]
    for result in results:
        scores = [f"{task.score:g}" for task in result.tasks]
        yield [result.student, *scores, f"{result.total:g}", f"{result.maximum:g}", result.seed, f"{result.seconds:g}"]


def _remarks(results: Sequence) -> Iterable[list]:
    yield ["student", "task", "score", "points", "state", "seconds", "remark", "trouble"]
    for result in results:
        for task in result.tasks:
            row = [task.name, f"{task.score:g}", f"{task.points:g}", task.state, f"{task.seconds:g}"]
            yield [result.student, *row, task.remark, task.trouble]


def _table(file: Path, rows: Iterable[list]) -> None:
    """Write a CSV file in which no cell is a spreadsheet's formula."""
    buffer = io.StringIO()
    safe = [["'" + cell if str(cell).startswith(FORMULA) else cell for cell in row] for row in rows]
    csv.writer(buffer, lineterminator="\n").writerows(safe)
    _put(file, buffer.getvalue())


def _put(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.part")
    partial.write_text(text, "utf8", errors="backslashreplace")
    partial.replace(file)


def feedback(result) -> str:
    """The page for a student: what failed, with its hint; no hidden input and no expected value."""
    head = f"<p>{result.total:g} of {result.maximum:g} points. Free-text answers are marked by a person.</p>"
    if result.problem:
        head += f"<p><strong>Nothing could be run: {html.escape(result.problem)}.</strong></p>"
    rows = [
        (_mark(task), task.name, task.title, f"{task.score:g} / {task.points:g}", task.remark) for task in result.tasks
    ]
    return PAGE.format(
        title=html.escape(f"{result.exercise}: {result.student}"),
        body=head + _html_table(["", "task", "", "points", "remark"], rows),
    )


def summary(results: Sequence, pairs: Sequence[tuple[str, str, float]], ready: dict[str, list[str]]) -> str:
    """The page for the teacher: points a student, where the class fails, what looks alike."""
    names = [task.name for task in results[0].tasks]
    read = [result for result in results if not result.problem] or results
    picture = base64.b64encode(where_students_fail(read)).decode()
    parts = [_part(read, i) for i in range(len(names))]
    hardest = min(range(len(names)), key=parts.__getitem__)
    alt = f"Share of the points earned, task by task; the least, {parts[hardest]:.0%}, in {names[hardest]}"
    rows = [[r.student, *(f"{task.score:g}" for task in r.tasks), f"{r.total:g}", r.problem] for r in results]
    body = [
        f"<p>{len(results)} students, {results[0].maximum:g} points, seed {results[0].seed}. {average(results)}</p>",
        f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">',
        _html_table(["student", *names, "total", "problem"], rows),
        "<h2>What those who lost points were told most often</h2>",
        _html_table(["task", "students", "remark"], _frequent(results)),
        "<h2>Look at these yourself</h2><p>Hints, not findings: short tasks have few right ways to be written, and a "
        "ready-made import may serve an experiment.</p>",
        _html_table(["student", "other", "alike"], [(a, b, f"{part:.0%}") for a, b, part in pairs]),
        _html_table(
            ["student", "ready-made parts"], [(name, ", ".join(found)) for name, found in ready.items() if found]
        ),
    ]
    troubled = [(r.student, task.name, task.trouble) for r in results for task in r.tasks if task.trouble]
    if troubled:
        body += ["<h2>The judge failed here</h2>", _html_table(["student", "task", "trouble"], troubled)]
    return PAGE.format(title=html.escape(f"{results[0].exercise}: the class"), body="\n".join(body))


def average(results: Sequence) -> str:
    """How many notebooks could be read, and what they earned, in a sentence."""
    totals = [result.total for result in results if not result.problem]
    if not totals:
        return "No notebook could be read."
    mean = sum(totals) / len(totals)
    return f"{len(totals)} handed in a notebook that could be read, with {mean:.1f} points on average."


def _part(results: Sequence, index: int) -> float:
    """The share of a task's points that the class earned."""
    points = sum(result.tasks[index].points for result in results)
    return sum(result.tasks[index].score for result in results) / points if points else 0.0


def _frequent(results: Sequence) -> list[tuple]:
    """(task, how many, remark), the three most frequent remarks of each task on work that lost points."""
    rows = []
    for index, task in enumerate(results[0].tasks):
        lost = [result.tasks[index] for result in results if not result.problem]
        counts = Counter(one.remark for one in lost if one.score < one.points)
        rows += [(task.name, count, remark) for remark, count in counts.most_common(3)]
    return rows


def _mark(task) -> str:
    return "✓" if task.score >= task.points else "✗" if task.score == 0 else "~"


def _html_table(head: Sequence, rows: Iterable[Sequence]) -> str:
    lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    if not lines:
        return "<p>None.</p>"
    names = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    return f"<table><tr>{names}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def where_students_fail(results: Sequence) -> bytes:
    """A PNG: for each task how many students got all, some and none of its points."""
    from matplotlib.figure import Figure

    names = [task.name for task in results[0].tasks]
    kinds = {"all": ("#009E73", ""), "some": ("#E69F00", "//"), "none": ("#D55E00", "xx")}
    counts = {
        "all": [sum(r.tasks[i].score >= r.tasks[i].points for r in results) for i in range(len(names))],
        "none": [sum(r.tasks[i].score == 0 for r in results) for i in range(len(names))],
    }
    counts["some"] = [len(results) - a - b for a, b in zip(counts["all"], counts["none"], strict=True)]
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    left = [0] * len(names)
    for kind, (colour, hatch) in kinds.items():
        axes.barh(names, counts[kind], left=left, color=colour, hatch=hatch, edgecolor="white", label=kind)
        left = [a + b for a, b in zip(left, counts[kind], strict=True)]
    axes.invert_yaxis()
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="students", title="Who earned all, some or none of a task's points")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()


# --- similarity


def ready_made(cells: Iterable[str], stub: Iterable[str] = ()) -> list[str]:
    """Ready-made parts that the student's own cells import or use, which they may have been asked to write.

    So are generators of data whose labels are hidden, and roundabout ways to a module: for a person to look at.

    A cell that stands in the stub is not the student's, but what it imports can be used by one that is.

    >>> ready_made(["import numpy", "from sklearn.cluster import KMeans"])
    ['sklearn']
    >>> ready_made(["from sklearn.cluster import KMeans", "KMeans(3)"], stub=["from sklearn.cluster import KMeans"])
    ['KMeans']
    """
    cells, given = list(cells), {" ".join(cell.split()) for cell in stub}
    own = [cell for cell in cells if " ".join(cell.split()) not in given]
    found = set()
    for code in (REMARK.sub("", cell.replace("\\\n", " ")) for cell in own):
        found.update(LIBRARIES.findall(code), (way.strip() for way in ROUNDABOUT.findall(code)))
        for room, rooms in ROOM.findall(code):
            found.update(f"course_utils.{name}" for name in re.findall(rf"\b(?:{ROOMS})\b", room + rooms))
        if GENERATOR.search(code):
            found.add("course_utils.data")
    handed = (names for cell in cells if cell not in own for names in READY_NAMES.findall(cell))
    names = {re.split(r"\s+as\s+", name.strip())[-1] for line in handed for name in line.split(",")} - {"Checker"}
    return sorted(found | {name for name in names if any(re.search(rf"\b{re.escape(name)}\b", cell) for cell in own)})


def stub_of(exercise: str) -> tuple[str, ...]:
    """The code cells of the student version that was handed out, if it stands beside the package."""
    file = Path(__file__).parents[2] / "notebooks" / "05_exercises" / f"{exercise}.ipynb"
    try:
        return tuple(code_cells(file.read_bytes()))
    except (OSError, UnreadableError):
        return ()


def similar(
    notebooks: dict[str, Sequence[str]], stub: Sequence[str] = (), at_least: float = ALIKE
) -> list[tuple[str, str, float]]:
    """Pairs of students whose code looks alike, most alike first: (one, other, share of the shorter's fingerprints).

    Names, comments, numbers, texts and layout do not count, nor does what stands in the stub or in a quarter of all
    notebooks (of four or more). Fingerprints are the least of 8 neighbours among hashes of 12 tokens ("winnowing",
    Schleimer, Wilkerson & Aiken, 2003).
    """
    given = _fingerprints(stub, keep_all=True)
    prints = {student: _fingerprints(cells) - given for student, cells in notebooks.items()}
    counts = Counter(mark for marks in prints.values() for mark in marks)
    common = {mark for mark, count in counts.items() if count >= 4 and count > len(prints) / 4}
    prints = {student: marks - common for student, marks in prints.items()}
    pairs = []
    for (one, a), (other, b) in combinations(prints.items(), 2):
        if min(len(a), len(b)) >= ENOUGH and (part := len(a & b) / min(len(a), len(b))) >= at_least:
            pairs.append((one, other, part))
    return sorted(pairs, key=lambda pair: -pair[2])


def _fingerprints(cells: Sequence[str], keep_all: bool = False) -> set[int]:
    marks = set()
    for cell in cells:
        tokens = _tokens(cell)
        runs = ["\0".join(tokens[i : i + RUN]) for i in range(len(tokens) - RUN + 1)]
        hashes = [zlib.crc32(run.encode()) for run in runs]
        if keep_all:
            marks.update(hashes)
        else:
            marks.update(min(hashes[i : i + WINDOW]) for i in range(max(0, len(hashes) - WINDOW + 1)))
    return marks


def _tokens(source: str) -> list[str]:
    """The shape of the code: keywords, signs and attributes as they are, other names and values by their kind."""
    shape = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in PLAIN:
                continue
            if token.type != tokenize.NAME:
                shape.append(token.string if token.type == tokenize.OP else str(token.type))
            elif keyword.iskeyword(token.string) or shape[-1:] == ["."]:
                shape.append(token.string)
            else:
                shape.append("name")
    except (tokenize.TokenError, SyntaxError, ValueError):  # what came before it counts
        pass
    return shape
