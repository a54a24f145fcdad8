"""The house: rooms that are small, that say what they hold, and of which only one may read the answer."""

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "scatterproof"
PLUGIN = SOURCE.with_name("snakemake_executor_plugin_submitit")
MODULES = sorted(SOURCE.rglob("*.py"))
ALL_MODULES = [*MODULES, *sorted(PLUGIN.glob("*.py"))]
ROOMS = sorted({path.parent for path in MODULES})
MOST_FILES, MOST_LINES, MOST_AT_THE_TOP = 14, 300, 12
MAY_READ_THE_ANSWER = ("judging", "puzzle.py", "cutting.py")
SCRIPTS_THAT_SCORE = {
    "measure_ceilings",
    "measure_plateau",
    "measure_victims",
    "score_attack",
    "score_fineness",
    "score_stream",
    "tap_stream",
}


def imports(path: Path) -> set[tuple[str, str]]:
    """(module, name) of everything that a file imports from this package, also within functions."""
    nodes = ast.walk(ast.parse(path.read_text()))
    from_here = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.module)
    return {
        (str(node.module), alias.name)
        for node in from_here
        if str(node.module).split(".")[0] == "scatterproof"
        for alias in node.names
    }


def room_of(module: str) -> str:
    """The room of a dotted module: its first folder, or itself where it lies at the top."""
    return module.split(".")[1] if module.count(".") else module


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.relative_to(SOURCE.parent).as_posix())
def test_a_room_is_small_and_says_what_it_holds(room: Path) -> None:
    files = [path for path in room.iterdir() if path.is_file()]
    assert len(files) <= (MOST_AT_THE_TOP if room == SOURCE else MOST_FILES), sorted(path.name for path in files)
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), "a line in its __init__.py"


def test_no_file_is_long() -> None:
    lengths = {path.relative_to(SOURCE.parent).as_posix(): len(path.read_text().splitlines()) for path in ALL_MODULES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_the_answer_is_read_where_it_may_be_read_and_nowhere_else() -> None:
    readers = {
        path.relative_to(SOURCE).as_posix() for path in MODULES if "Answer" in {name for _, name in imports(path)}
    }
    assert readers, "someone must read it"
    assert {name for name in readers if not name.startswith(MAY_READ_THE_ANSWER)} == set()


def test_only_the_scripts_that_score_hand_the_answer_over() -> None:
    scripts = sorted((SOURCE.parents[1] / "workflow/scripts").glob("*.py"))
    readers = {path.stem for path in scripts if "Answer" in {name for _, name in imports(path)}}
    assert scripts and readers == SCRIPTS_THAT_SCORE


@pytest.mark.parametrize("rule", ["attack_puzzle", "attack_fineness", "search_placements", "hijack_stream"])
def test_no_rule_of_an_attack_has_an_answer_among_its_inputs(rule: str) -> None:
    rules = "".join(path.read_text() for path in (SOURCE.parents[1] / "rules").glob("*.smk"))
    inputs = rules.split(f"rule {rule}:")[1].split("output:")[0]
    assert "input:" in inputs and "answer" not in inputs.lower() and "truth" not in inputs


def test_rooms_import_each_other_in_one_direction() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        inside = path.relative_to(SOURCE).with_suffix("").parts
        for module, name in imports(path):
            target = f"{module}.{name}" if module == "scatterproof" else module
            if room_of(target) != inside[0]:
                graph[inside[0]].add(room_of(target))
    assert "report" not in graph["cost"]
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("room", ["config", "analysis", "cost"])
def test_what_snakemake_parses_needs_no_torch(room: str) -> None:
    modules = [path.relative_to(SOURCE.parent).with_suffix("") for path in (SOURCE / room).glob("*.py")]
    names = ", ".join(".".join(module.parts).removesuffix(".__init__") for module in modules)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_two_modules_of_one_name_mean_other_things() -> None:
    """What every room may have: the base of its kind, the attack itself, its runner and its store."""
    shared = {"__init__", "base", "attack", "runner", "store"}
    places: dict[str, list[str]] = defaultdict(list)
    for path in ALL_MODULES:
        if path.stem not in shared:
            places[path.stem].append(path.relative_to(SOURCE.parent).as_posix())
    sections = {"sections", "figures", "config"}  # a section of the page, of the study, is named as what it shows
    double = {name: paths for name, paths in places.items() if len(paths) > 1}
    other = {name: [path for path in paths if not sections & {*Path(path).parts}] for name, paths in double.items()}
    assert {name: paths for name, paths in other.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("module", ["judging.judge", "attacks.runner"])
def test_jobs_start_without_what_few_of_them_need(module: str) -> None:
    """A study has thousands of jobs, and each imports what it attacks and scores with."""
    slow = ("sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "transformers", "torchvision")
    code = f"import sys, scatterproof.{module}; print(*(name for name in {slow} if name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b""
