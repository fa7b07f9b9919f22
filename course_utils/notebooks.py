"""Running notebooks: with other data or another seed (`course run`), or in place, to be committed with outputs."""

import argparse
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from course_utils.claims import CLAIM_MIME

TIMEOUT = 900  # seconds a cell may take


@dataclass(frozen=True)
class RunResult:
    """What came of a run: the claims it made, how long it took, and the error that stopped it, if one did."""

    claims: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.error is None

    def __str__(self) -> str:
        lines = []
        for made in self.claims:
            mark = ("✓" if made["holds"] else "✗") if made["asserted"] else "·"
            note = "" if made["asserted"] else ", reported only"
            value = "not finite" if made["value"] is None else f"{made['value']:.4g}"
            lines.append(f"{mark} {made['text']}: {value} (bound {made['wanted']}{note})")
        end = f"stopped: {self.error}" if self.error else f"ran to the end in {self.seconds:.0f} s"
        return "\n".join([*lines, f"{len(self.claims)} claims; {end}"])


def run(
    path: str | Path, *, data: str | None = None, seed: int | None = None, out: str | Path | None = None
) -> RunResult:
    """Execute a copy of a notebook from top to bottom, with `DATA` and `SEED` replaced where given.

    out: where to write the executed copy. The notebook itself is never changed. Raises ValueError for a file that is
    no notebook, an unknown data set, or a notebook without a cell tagged `parameters`.
    """
    path = Path(path)
    if path.suffix != ".ipynb" or not path.is_file():
        raise ValueError(f"{path} is not a notebook: give the path of an .ipynb file")
    notebook = nbformat.read(path, as_version=4)
    parameters = {name: value for name, value in {"DATA": data, "SEED": seed}.items() if value is not None}
    if parameters:
        if data is not None:
            from course_utils.data import CATALOGUE

            if data not in CATALOGUE and not data.startswith("folder:"):
                raise ValueError(f"{data!r} is no data set: choose one of {', '.join(CATALOGUE)} or folder:PATH")
        _inject(notebook, path, parameters)
    seconds, error = _execute(notebook, path.resolve().parent)
    if out is not None:
        _write(notebook, Path(out))
    return RunResult(claims(notebook), seconds, error)


def claims(notebook) -> list[dict]:
    """The claims that an executed notebook made, in order: text, value, wanted, holds, asserted."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [dict(output["data"][CLAIM_MIME]) for output in outputs if CLAIM_MIME in output.get("data", {})]


def execute(path: str | Path) -> RunResult:
    """Execute a notebook in place, in one clean run, and record its seconds and peak memory in its metadata.

    Not on Windows, which does not count a child's memory and processor time.
    """
    import resource

    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, error = _execute(notebook, path.resolve().parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    result = RunResult(claims(notebook), seconds, error)
    if result.succeeded:
        notebook.metadata = {
            "course": {"cpu_seconds": round(cpu), "peak_mib": round(peak), "run_seconds": round(seconds)},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        for cell in notebook.cells:
            cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        _write(notebook, path)
    return result


def _inject(notebook, path: Path, parameters: dict) -> None:
    cells = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path} must have one cell tagged 'parameters' to take DATA and SEED, it has {len(cells)}")
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(cells[0] + 1, nbformat.v4.new_code_cell(source))


def _execute(notebook, folder: Path) -> tuple[float, str | None]:
    """Run every cell in a fresh kernel of this interpreter. Returns the seconds and what went wrong, if anything."""
    env = os.environ | {"COURSE_PROGRESS": "0", "PYTHONWARNINGS": "default"}
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    start = time.perf_counter()
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        return time.perf_counter() - start, f"{error.ename}: {error.evalue}"
    return time.perf_counter() - start, None


def _write(notebook, path: Path) -> None:
    partial = path.with_name(path.name + ".partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)


def main(arguments: list[str] | None = None) -> int:
    """`python -m course_utils.notebooks execute NOTEBOOK …`: execute in place, stop at the first that fails."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.notebooks", description=main.__doc__)
    parser.add_argument("command", choices=["execute"])
    parser.add_argument("notebook", nargs="+", type=Path)
    for path in parser.parse_args(arguments).notebook:
        print(path)
        result = execute(path)
        print(result)
        if not result.succeeded:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
