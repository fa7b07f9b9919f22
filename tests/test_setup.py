"""The files that set the course up agree with each other, and the README keeps its promises."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [Requirement(line) for line in sum(EXTRAS.values(), PROJECT["dependencies"])]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text("utf8"), re.MULTILINE
    )
}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_a_tested_version_inside_its_range(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"constraints.txt has no version of {name}"
    assert PINS[name] in requirement.specifier


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_a_least_version(requirement):
    assert any(part.operator == ">=" for part in requirement.specifier)


def test_constraints_hold_nothing_but_pins():
    lines = (ROOT / "constraints.txt").read_text("utf8").splitlines()
    pins = [line for line in lines if line.strip() and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[^\s;]+( *;.+)?", line)] == []
    names = [canonicalize_name(line.split("==")[0]) for line in pins]
    assert names == sorted(set(names))


def test_conda_installs_what_pip_installs_from_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))
    pip = next(part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    assert pip == ["-c constraints.txt", "-e .[dev]"]
    python = next(part for part in environment["dependencies"] if str(part).startswith("python"))
    assert Requirement(python).specifier.contains("3.11")
    assert PROJECT["requires-python"] in python


def test_the_public_ci_covers_the_pythons_and_systems_that_are_promised():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert [system.split("-")[0] for system in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_pre_commit_formats_notebooks_with_the_tested_ruff():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf8"))
    ruff = next(repo for repo in config["repos"] if repo["repo"].endswith("ruff-pre-commit"))
    assert Version(ruff["rev"]) == PINS["ruff"]
    assert all("jupyter" in hook["types_or"] for hook in ruff["hooks"])


def test_the_version_is_the_same_everywhere():
    import course_utils

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert course_utils.__version__ == PROJECT["version"] == str(citation["version"])
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf8")


def test_torch_and_torchvision_are_pinned_as_a_pair():
    torch, vision = PINS["torch"], PINS["torchvision"]
    assert vision.minor == torch.minor + 15  # torchvision 0.n goes with torch 2.(n − 15)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_links_between_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text("utf8"))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_the_readme_opens_with_the_two_commands():
    block = (ROOT / "README.md").read_text("utf8").split("```")[1]
    assert [line.split("#")[0].strip() for line in block.strip().splitlines()] == ["make lab", "make test"]


def test_the_readme_maps_every_notebook():
    text = (ROOT / "README.md").read_text("utf8")
    notebooks = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb"))
    assert sorted(set(re.findall(r"\((notebooks/[^)]+\.ipynb)\)", text))) == notebooks


def test_the_ten_lines_of_the_readme_run(tmp_path):
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf8"), re.DOTALL)[1]
    assert example.strip().count("\n") < 12
    short = example.replace("steps=300", "steps=2").replace('"glyphs"', '"glyphs", n_train=6000, n_test=500')
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 / 26 < float(done.stdout) < 1


def test_the_ci_script_runs_the_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text("utf8")
    assert script.rstrip().endswith("make test")
    assert "export COURSE_OFFLINE=1" in script
