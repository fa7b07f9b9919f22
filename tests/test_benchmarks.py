"""The harness of the benchmarks: who is called when, what a ratio is, and what a table says. Nothing here is timed."""

import importlib.util
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
bench = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = bench
spec.loader.exec_module(bench)
Cost, Record, Spread = bench.Cost, bench.Record, bench.Spread


class Shop:
    """Two calls and a clock that only they move: call i of "ours" or "theirs" takes the i-th of its costs."""

    def __init__(self, ours, theirs):
        self.costs = {"ours": iter(ours), "theirs": iter(theirs)}
        self.calls, self.time = [], Cost(100.0, 7.0)

    def buy(self, side):
        wall, cpu = next(self.costs[side])
        self.calls.append(side)
        self.time = Cost(self.time.wall + wall, self.time.cpu + cpu)

    def measure(self, **options):
        return bench.measure(
            "x", lambda: self.buy("ours"), lambda: self.buy("theirs"), clock=lambda: self.time, **options
        )


def record(ours, theirs, reach=None):
    return Record("x", tuple(Cost(*c) for c in ours), tuple(Cost(*c) for c in theirs), reach)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_both_are_called_once_in_every_round_and_take_turns_in_going_first(rounds):
    shop = Shop([(1, 1)] * 9, [(1, 1)] * 9)
    shop.measure(rounds=rounds)
    warm_up, measured = shop.calls[:2], shop.calls[2:]
    assert sorted(warm_up) == ["ours", "theirs"]
    assert measured == (["ours", "theirs", "theirs", "ours"] * 2)[: 2 * rounds]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_costs_stand_on_their_own_side_in_the_order_of_the_rounds_without_the_warm_up(rounds):
    shop = Shop([(50, 50), (1, 4), (2, 5), (3, 6)], [(90, 90), (10, 40), (20, 50), (30, 60)])
    seen = shop.measure(rounds=rounds)
    assert seen.ours == ((1, 4), (2, 5), (3, 6))[:rounds]
    assert seen.theirs == ((10, 40), (20, 50), (30, 60))[:rounds]


def test_a_repeated_call_costs_the_mean_of_its_repetitions():
    seen = Shop([(99, 99), (1, 10), (2, 20), (6, 60)], [(99, 99), (3, 1), (3, 2), (3, 3)]).measure(rounds=1, repeat=3)
    assert (seen.ours, seen.theirs) == (((3, 30),), ((3, 2),))


def test_a_call_measured_against_itself_keeps_two_sides():
    shop = Shop([(1, 1)] * 9, [])

    def call():
        shop.buy("ours")

    seen = bench.measure("x", call, call, rounds=3, clock=lambda: shop.time)
    assert seen.ours == seen.theirs == ((1, 1),) * 3


def test_the_ratio_is_the_median_of_the_ratios_within_rounds_not_the_ratio_of_the_medians():
    """A machine that is ten times slower in one round must not move the ratio."""
    seen = record([(1, 1), (10, 1), (2, 1)], [(3, 4), (30, 5), (4, 9)])
    assert seen.ratio("wall") == (3, 2, 3)
    assert seen.ratio("cpu") == (5, 4, 9)


def test_a_ratio_above_one_says_that_ours_takes_less():
    assert record([(2, 1)], [(8, 1)]).ratio("wall").median == 4


def test_the_spread_of_an_even_number_is_the_mean_of_the_middle_two_with_the_range():
    assert bench.spread(iter([4.0, 1.0, 10.0, 2.0])) == (3, 1, 10)


@pytest.mark.parametrize(
    ("wall", "cpu", "reach", "expected"),
    [(3, 3, 3, True), (2.99, 9, 3, False), (9, 2.99, 3, False), (0.5, 0.5, None, True)],
)
def test_a_target_is_reached_when_both_clocks_reach_it(wall, cpu, reach, expected):
    assert record([(1, 1)], [(wall, cpu)], reach).reached is expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.234, 1.0, 1.5), "1.23 (1.00–1.50)"),
        ((10.04, 9.96, 12), "10.0 (10.0–12.0)"),
        ((1234.4, 100, 5000), "1234 (100–5000)"),
    ],
)
def test_a_spread_is_written_with_three_digits_of_its_median(values, text):
    assert str(Spread(*values)) == text


def test_the_table_shows_medians_in_milliseconds_both_ratios_and_the_target():
    fast = record([(0.1, 0.1), (0.2, 0.2), (0.3, 0.3)], [(0.4, 0.2), (0.8, 0.6), (1.2, 0.6)], reach=2)
    slow = record([(1, 1)], [(0.5, 2)], reach=1.4)
    free = record([(1, 1)], [(1, 1)])
    head, rule, *rows = bench.comparison_table([fast, slow, free], "here", "there").splitlines()
    assert cells(head)[1:3] == ["here, ms", "there, ms"]
    assert cells(rule) == ["---"] + ["--:"] * 5
    assert cells(rows[0]) == ["x", "200.0", "800.0", "4.00 (4.00–4.00)", "2.00 (2.00–3.00)", "2 ✓"]
    assert cells(rows[1])[3:] == ["0.50 (0.50–0.50)", "2.00 (2.00–2.00)", "1.4 ✗"]
    assert cells(rows[2])[-1] == ""


def test_the_clock_counts_the_processor_time_of_children_while_they_live_and_after():
    code = "import sys\nfor _ in range(1_000_000): pass\nprint(flush=True)\nsys.stdin.read()"
    before = bench.now()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    alive = bench.now()
    child.communicate()
    gone = bench.now()
    assert alive.cpu - before.cpu >= 0.02
    assert gone.cpu - before.cpu >= 0.02
    assert gone.wall > alive.wall > before.wall


def test_without_lightly_the_reader_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(bench, "_lightly", lambda: None)
    with pytest.raises(SystemExit, match="lightly is not installed: run `make bench`"):
        bench.main([])


def test_an_unknown_part_is_refused_with_the_names_of_the_parts(capsys):
    with pytest.raises(SystemExit):
        bench.main(["--only", "speed"])
    message = capsys.readouterr().err
    assert [
        name for name in [*bench.COMPARISONS, "methods", "layouts"] if name not in message.split("choose from")[1]
    ] == []


@pytest.mark.parametrize(
    ("arguments", "saved", "asked"),
    [
        ([], True, [*bench.COMPARISONS]),
        (["--quick"], False, [*bench.COMPARISONS]),
        (["--only", "knn"], False, ["knn"]),
        (["--only", "methods"], False, []),
    ],
)
def test_only_a_full_run_is_saved_and_only_what_is_asked_for_is_measured(
    arguments, saved, asked, monkeypatch, tmp_path
):
    ran = []

    def stand_in(name):
        def compare(size):
            ran.append((name, size))
            return [record([(1, 1)], [(2, 3)], reach=2)]

        return compare

    monkeypatch.setattr(bench, "COMPARISONS", {name: stand_in(name) for name in bench.COMPARISONS})
    for name in ("compare_k_means", "compare_layouts"):
        monkeypatch.setattr(bench, name, lambda size: [record([(1, 1)], [(1, 1)])])
    monkeypatch.setattr(bench, "method_table", lambda size: "| the methods |")
    monkeypatch.setattr(bench, "_lightly", lambda: "1.0")
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results.md")
    bench.main(arguments)
    assert bench.RESULTS.exists() is saved
    assert [name for name, _ in ran] == asked
    assert {size for _, size in ran} <= {bench.QUICK if "--quick" in arguments else bench.Size()}
    if saved:
        page = bench.RESULTS.read_text("utf8")
        assert page.count("| x |") == len(asked) + 2
        assert "| the methods |" in page
        assert bench.machine() in page


def test_a_full_run_has_at_least_seven_rounds():
    assert bench.Size().rounds >= 7


def test_the_facts_of_the_machine_name_neither_the_host_nor_a_folder():
    facts = bench.machine()
    assert platform.node() not in facts
    assert str(Path.home()) not in facts
    assert not re.search(r"/\w+/", facts)
    assert re.search(r"\d+ cores, \d+ threads", facts)


def test_the_saved_results_show_every_comparison_and_no_path():
    page = (FOLDER / "results.md").read_text("utf8")
    titles = ["Beside lightly", "k-means beside scikit-learn", "A step of each method"]
    for title in [*titles, "The encoder in float32, by memory layout"]:
        assert f"## {title}" in page
    assert not re.search(r"/(home|root|tmp|work|Users)/", page)
