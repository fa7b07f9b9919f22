"""The commands print what the package answers, and their exit status says whether it went well."""

import nbformat
import pandas as pd
import pytest
from typer.testing import CliRunner

from course_utils import doctor, league, notebooks
from course_utils.cli import app
from course_utils.data import describe


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("fix", "status"), [(None, 0), ("mend it", 1)])
def test_the_doctor_prints_its_report_and_exits_1_when_something_is_wrong(monkeypatch, fix, status):
    report = doctor.Report((doctor.Finding("disk", "seen", fix),))
    monkeypatch.setattr(doctor, "examine", lambda: report)
    result = call("doctor")
    assert result.exit_code == status
    assert result.output.strip() == str(report)


def test_data_list_prints_the_catalogue():
    assert call("data", "list").output.strip() == describe()


def test_data_get_prints_the_set_and_its_card():
    result = call("data", "get", "iris")
    assert result.exit_code == 0
    assert result.output.startswith("iris (real): 90 / 30 / 30")
    assert "licence" in result.output


@pytest.mark.parametrize("command", ["get", "path"])
def test_an_unknown_set_is_one_line_and_exit_1(command):
    result = call("data", command, "mnits")
    assert result.exit_code == 1
    assert "did you mean 'mnist'" in result.output
    assert "Traceback" not in result.output


def test_a_set_that_is_not_here_offline_is_one_line_and_exit_1(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr("course_utils.data.store.own_folder", lambda: tmp_path)
    result = call("data", "get", "mnist")
    assert result.exit_code == 1
    assert "COURSE_OFFLINE is set" in result.output
    assert "Traceback" not in result.output


def test_run_passes_its_options_on_and_prints_the_claims(monkeypatch, tmp_path):
    seen = {}

    def run(notebook, **options):
        seen.update(options, notebook=notebook)
        claims = [{"text": "a", "value": 0.5, "wanted": "≥ 0.4", "holds": True, "asserted": True}]
        return notebooks.RunResult(claims, 2.0)

    monkeypatch.setattr(notebooks, "run", run)
    result = call("run", "a.ipynb", "--data", "mnist", "--seed", "3", "--out", tmp_path / "b.ipynb")
    assert result.exit_code == 0
    assert seen["data"] == "mnist"
    assert seen["seed"] == 3
    assert "✓ a: 0.5 (bound ≥ 0.4)" in result.output


def test_run_exits_1_when_a_cell_fails(tmp_path):
    path = tmp_path / "bad.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    result = call("run", path)
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output


@pytest.mark.parametrize("arguments", [("run", "nowhere.ipynb"), ("run", "README.md")])
def test_run_names_a_file_that_is_no_notebook(arguments):
    result = call(*arguments)
    assert result.exit_code == 1
    assert "is not a notebook" in result.output
    assert "Traceback" not in result.output


def test_league_passes_its_options_on_and_prints_the_best_row_first(monkeypatch, tmp_path):
    seen = {}

    def run(data, **options):
        seen.update(options, data=data)
        columns = {"probe_100": 0.1, "probe_5000": [0.5, 0.9], "knn": 0.2, "seconds": 3.0}
        return pd.DataFrame({"row": ["PCA", "simclr"], "lr": 0.1} | columns)

    monkeypatch.setattr(league, "run", run)
    out = tmp_path / "mine.csv"
    result = call("league", "--data", "mnist", "--rows", "PCA, simclr", "--seeds", 2, "--jobs", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[2:]] == ["simclr", "PCA"]
    assert (seen["data"], seen["rows"], list(seen["seeds"])) == ("mnist", ["PCA", "simclr"], [0, 1])
    assert (seen["n_jobs"], seen["out"], seen["steps"], seen["batch_size"]) == (1, out, 1200, 64)


def test_a_search_tries_rates_on_validation_with_a_seed_of_its_own(monkeypatch, tmp_path):
    seen = {}

    def run(data, **options):
        seen.update(options)
        return pd.DataFrame({"row": ["simclr"], "lr": 0.1, "probe_100": 0.1, "probe_5000": 0.2, "knn": 0, "seconds": 1})

    monkeypatch.setattr(league, "run", run)
    assert call("league", "--search", "--out", tmp_path / "search.csv").exit_code == 0
    assert (seen["split"], seen["rates"], seen["seeds"]) == ("validation", league.RATES, [league.SEARCH_SEED])
    assert "PCA" not in seen["rows"]
    assert "simclr" in seen["rows"]


def test_an_unknown_row_of_the_league_is_one_line_and_exit_1(tmp_path):
    result = call("league", "--rows", "simcrl", "--out", tmp_path / "league.csv")
    assert result.exit_code == 1
    assert "there is no row 'simcrl'" in result.output
    assert "Traceback" not in result.output
