"""`course`: the package from a terminal. Every command calls one function of the package and prints the answer."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Self-supervised learning, live.")
data_app = typer.Typer(no_args_is_help=True, help="The catalogue of data sets.")
app.add_typer(data_app, name="data")


@app.command()
def doctor() -> None:
    """Look at this installation and name the fix for each thing that is wrong."""
    from course_utils.doctor import examine

    report = examine()
    typer.echo(str(report))
    raise typer.Exit(0 if report.healthy else 1)


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="A notebook of the course.")],
    data: Annotated[str | None, typer.Option(help="Another data set, such as mnist.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the executed copy.")] = None,
) -> None:
    """Run a notebook from top to bottom, with another data set or seed if asked, and list its claims."""
    from course_utils.notebooks import run as run_notebook

    try:
        result = run_notebook(notebook, data=data, seed=seed, out=out)
    except ValueError as error:
        typer.echo(f"course run: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(str(result))
    raise typer.Exit(0 if result.succeeded else 1)


@app.command()
def league(
    data: Annotated[str, typer.Option(help="Any image set of the catalogue.")] = "glyphs",
    rows: Annotated[str | None, typer.Option(help="Some rows only, separated by commas.")] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 5,
    steps: Annotated[int, typer.Option(help="Updates of every method.")] = 1200,
    batch_size: Annotated[int, typer.Option(help="Images an update.")] = 64,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as there are cores or GPUs.")] = None,
    search: Annotated[bool, typer.Option("--search", help="Try learning rates on validation, with one seed.")] = False,
    out: Annotated[Path, typer.Option(help="The table; runs it already has are kept.")] = Path("league.csv"),
) -> None:
    """Train every method with the same encoder, images and updates, and write what each representation is worth."""
    from course_utils import league as table
    from course_utils.data import DataError

    options = (
        {"seeds": [table.SEARCH_SEED], "split": "validation", "rates": table.RATES}
        if search
        else {"seeds": range(seeds)}
    )
    names = [name.strip() for name in rows.split(",")] if rows else table.ROWS
    if search:
        names = [name for name in names if table.is_trained(name)]
    try:
        results = table.run(data, rows=names, steps=steps, batch_size=batch_size, n_jobs=jobs, out=out, **options)
    except (DataError, ValueError) as error:
        typer.echo(f"course league: {error}", err=True)
        raise typer.Exit(1) from None
    shown = results.groupby(["row", "lr"] if search else "row")[["probe_100", "probe_5000", "knn", "seconds"]].mean()
    typer.echo(shown.sort_values("probe_5000", ascending=False).round(3).to_string())


@app.command()
def student_versions(
    sources: Annotated[Path, typer.Argument(help="The folder of the exercises' sources.")],
    out: Annotated[Path, typer.Argument(help="Where the student versions go.")],
) -> None:
    """Make the student version of every exercise: stubs where the solutions are."""
    from course_utils.classroom import write_student_versions

    for path in write_student_versions(sources.glob("*.ipynb"), out):
        typer.echo(str(path))


@app.command()
def classroom(
    folder: Annotated[Path, typer.Argument(help="Where the course folder goes; what is there stays.")],
    sources: Annotated[Path, typer.Option(help="The folder of the exercises' sources.")] = Path("exercises"),
) -> None:
    """Make an nbgrader course of the exercises, ready to release, collect and grade."""
    from course_utils.classroom import prepare_course

    try:
        prepare_course(folder, sources.glob("*.ipynb"))
    except ValueError as error:
        typer.echo(f"course classroom: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{folder} holds nbgrader_config.py and source/: go on with `nbgrader generate_assignment` there")


@app.command()
def grade(
    submissions: Annotated[Path, typer.Argument(help="A folder with one folder or zip file a student.")],
    out: Annotated[Path, typer.Option(help="Where tables and pages are written; results it has are kept.")],
    exercise: Annotated[list[str] | None, typer.Option(help="Such as 03_k_means; all that were handed in.")] = None,
    jobs: Annotated[int, typer.Option(help="Submissions at a time.")] = 2,
    seed: Annotated[int | None, typer.Option(help="Of the hidden inputs, to repeat a run.")] = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Run strangers' code without a sandbox.")] = False,
) -> None:
    """Grade submissions: each runs in a sandbox with fresh inputs, and is judged outside of it."""
    from course_utils.grading import report
    from course_utils.grading.grade import grade as grade_all
    from course_utils.grading.sandbox import SandboxError

    try:
        results = grade_all(submissions, out, exercises=exercise or (), jobs=jobs, seed=seed, unsafe=unsafe)
    except (SandboxError, ValueError) as error:
        typer.echo(f"course grade: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(
            f"course grade: interrupted; {out} keeps what is done, and the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None
    for name, graded in results.items():
        typer.echo(f"{name}: {len(graded)} students, {graded[0].maximum:g} points. {report.average(graded)}")
        typer.echo(f"  {out / name / 'grades.csv'}, {out / name / 'summary.html'}")


@data_app.command("list")
def data_list() -> None:
    """List the data sets, and where each one is found or would come from."""
    from course_utils.data import describe

    typer.echo(describe())


@data_app.command("get")
def data_get(name: str) -> None:
    """Fetch a data set so that it can be used offline, and print its card."""
    from course_utils.data import CATALOGUE, DataError, load, load_text

    try:
        splits = load_text(name) if name in CATALOGUE and CATALOGUE[name].is_text else load(name)
    except (DataError, ValueError) as error:
        typer.echo(f"course data get: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{splits}\n{splits.card}")


@data_app.command("path")
def data_path(name: str) -> None:
    """Print where a data set's files are on this machine."""
    from course_utils.data import DataError, locate

    try:
        typer.echo(str(locate(name)))
    except (DataError, ValueError) as error:
        typer.echo(f"course data path: {error}", err=True)
        raise typer.Exit(1) from None
