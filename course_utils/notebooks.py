"""Running notebooks: with other data or another seed (`course run`), or in place, to be committed with outputs."""

import argparse
import ast
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from course_utils.claims import CLAIM_MIME
from course_utils.precision import has_native_bf16

TIMEOUT = 900  # seconds a cell may take
USAGE = """import pathlib, resource
status = pathlib.Path("/proc/self/status")
(resource.getrusage(resource.RUSAGE_SELF)[:3], resource.getrusage(resource.RUSAGE_CHILDREN)[:3],
 status.read_text() if status.exists() else "")"""


@dataclass(frozen=True)
class RunResult:
    """What came of a run: the claims it made, how long it took, and the error that stopped it, if one did."""

    claims: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """Whether every cell ran."""
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
    no notebook, an unknown data set, a notebook without a cell tagged `parameters`, or a copy that cannot be written.
    """
    path = Path(path)
    notebook = _read(path)
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise ValueError(f"{out} cannot be written: there is no folder {Path(out).absolute().parent}")
    if out is not None and Path(out).resolve() == path.resolve():
        raise ValueError(f"{out} is the notebook itself: give the executed copy another name")
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

    Not on Windows, which does not count a process's memory and processor time.
    """
    path = Path(path)
    notebook = _read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(USAGE))  # asked of the kernel itself, once the notebook is through
    seconds, error = _execute(notebook, path.resolve().parent)
    usage = notebook.cells.pop()
    result = RunResult(claims(notebook), seconds, error)
    if result.succeeded:
        cpu, peak = _usage(usage.outputs[0].data["text/plain"])
        widgets = {key: value for key, value in notebook.metadata.items() if key == "widgets"}
        notebook.metadata = widgets | {
            "course": {
                "bf16": has_native_bf16("cpu"),
                "cpu_seconds": round(cpu),
                "peak_mib": round(peak),
                "run_seconds": round(seconds),
            },
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        for cell in notebook.cells:
            cell.metadata = {key: cell.metadata[key] for key in ("nbgrader", "tags") if cell.metadata.get(key)}
        _write(notebook, path)
    return result


def _read(path: Path):
    if path.suffix != ".ipynb" or not path.is_file():
        raise ValueError(f"{path} is not a notebook: give the path of an .ipynb file")
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error


def _inject(notebook, path: Path, parameters: dict) -> None:
    cells = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{path} must have one cell tagged 'parameters' to take DATA and SEED, it has {len(cells)}")
    source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(cells[0] + 1, nbformat.v4.new_code_cell(source))


def _execute(notebook, folder: Path) -> tuple[float, str | None]:
    """Run every cell in a fresh kernel of this interpreter. Returns the seconds and what went wrong, if anything."""
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what an earlier run left must not stand for this one, should it stop early
            cell.update(outputs=[], execution_count=None)
    env = os.environ | {"COURSE_PROGRESS": "0", "PYTHONWARNINGS": "default"}
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    start = time.perf_counter()
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        return time.perf_counter() - start, f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        return time.perf_counter() - start, f"a cell took more than {TIMEOUT} s"
    except DeadKernelError:
        return time.perf_counter() - start, "the kernel died, as it does when memory runs out"
    return time.perf_counter() - start, None


def _usage(answer: str) -> tuple[float, float]:
    """Processor seconds and peak MiB from what USAGE shows.

    Linux hands the peak of the process that starts the kernel down to it in getrusage, and not in VmHWM.
    """
    (user, system, peak), (user_below, system_below, peak_below), status = ast.literal_eval(answer)
    if high_water := re.search(r"VmHWM:\s*(\d+)", status):
        peak = int(high_water[1])
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return user + system + user_below + system_below, max(peak, peak_below) / unit


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
        try:
            result = execute(path)
        except ValueError as error:
            print(error)
            return 1
        print(result)
        if not result.succeeded:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
