"""What a pirate reaches who is told every place and key, and what it is never told."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import small
from planted import planted_puzzle
from scatterproof.analysis.choice import chosen
from scatterproof.analysis.control_results import PASSED, state_of
from scatterproof.analysis.tables import trajectory_table
from scatterproof.attacks.base import Copy, Machine, Run
from scatterproof.attacks.runner import make_attack
from scatterproof.attacks.training.base import named
from scatterproof.blocks import factors, input_shares, lines_of
from scatterproof.config.attacks import AttacksConfig, AttackSettings, ceilings_on
from scatterproof.config.settings.ceilings import FORMS, granted_forms
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import protect_network
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.label_free import guessing_loss, statistics_loss
from scatterproof.judging.ceilings.rows import ceiling_rows
from scatterproof.judging.ceilings.told import directions, tell
from scatterproof.judging.ceilings.told_controls import CeilingControls, spans, without_blocks, without_directions
from scatterproof.judging.controls import Controls
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle, with_images
from scatterproof.report.sections import leaderboard
from workflow import RESULTS, Finished

CPU = torch.device("cpu")
SETTINGS = AttackSettings.model_validate({"layer": {"updates": 40, "rates": [0.1]}})
TAUGHT = AttackSettings.model_validate({"layer": {"updates": 100, "rates": [0.1]}})
LAYER = "3"


def defended(defence: object, **threat: object) -> tuple[Puzzle, Answer, Judge]:
    data, model = small.dataset(pirate=20), small.network(small.WIDE, seed=3)
    granted = ThreatModel.model_validate({"images": 20, "defence": defence, **threat})
    layout = small.puzzle(model, small.WIDE, data)[0].layout
    images = torch.rand(4, 3, 8, 8)
    made = protect_network(model, layout, granted.defence, images, ("test",)) if granted.defended else None
    puzzle, answer = make_puzzle(model, small.WIDE, data, granted, 16, ("test",), protected=made)
    return puzzle, answer, Judge(puzzle, answer, model, data, CPU)


def pirate_of(puzzle: Puzzle, answer: Answer, work: Path | None = None) -> ToldPirate:
    return ToldPirate(puzzle, tell(puzzle, answer), SETTINGS, [], Run(Machine(CPU, 1), ("test",), work))


def reached(pirate: ToldPirate, form: str) -> dict[str, torch.Tensor]:
    return pirate.result(form).copy.tensors  # type: ignore[arg-type]


@pytest.mark.parametrize("defence", ["none", "rescale"])
def test_told_all_places_the_network_is_the_victims(defence: str) -> None:
    puzzle, answer, judge = defended(defence)
    scores = judge.score(Copy(named(tell(puzzle, answer).as_is)))
    assert float(scores.agreement) == 1 and float(scores.accuracy) == judge.known_places.own_accuracy


def test_where_blocks_are_missing_it_is_corrected_as_the_evaluator_does() -> None:
    puzzle, answer, judge = defended({"name": "home", "share": 0.4})
    layout, block_at = puzzle.layout, answer.placement.blocks()
    held = layout.assemble(lines_of(puzzle.blocks), block_at)["3"]
    scale = factors(input_shares(layout, block_at)["3"])
    told = tell(puzzle, answer).as_is["3"]
    assert torch.allclose(told, held * scale[:, None]) and not torch.allclose(told, held)
    assert judge.score(Copy(named({"3": told}))).agreement == judge.known_places.agreement


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_what_stays_at_home_is_never_told(share: float) -> None:
    puzzle, answer, _ = defended({"name": "home", "share": share}, knows="labels")
    floats = {name for name, value in answer.secret.items() if value.is_floating_point()}
    assert floats
    other = {name: torch.randn_like(value) if name in floats else value for name, value in answer.secret.items()}
    told, else_told = tell(puzzle, answer), tell(puzzle, replace(answer, secret=other))
    assert torch.equal(told.weights[LAYER], else_told.weights[LAYER])
    assert not told.complete and told.missing[LAYER].float().mean() == pytest.approx(share, abs=0.01)
    assert bool((told.weights[LAYER][told.missing[LAYER]] == 0).all())


def test_told_of_nothing_training_reaches_what_it_does_without_blocks() -> None:
    puzzle, answer, _ = defended("home", knows="labels")
    run = Run(Machine(CPU, 1), ("test", "layer"))
    (without,) = make_attack(SETTINGS, "layer").run(puzzle, run)
    assert isinstance(without.reached, Copy)
    assert torch.equal(reached(pirate_of(puzzle, answer), "told+train")[f"{LAYER}.weight"],
                       without.reached.tensors[f"{LAYER}.weight"])  # fmt: skip


@pytest.mark.parametrize("form", ["told+core", "told+free"])
def test_only_missing_entries_are_trained(form: str) -> None:
    puzzle, answer, _ = defended({"name": "home", "share": 0.4}, knows="labels")
    pirate = pirate_of(puzzle, answer)
    weight, known = reached(pirate, form)[f"{LAYER}.weight"], ~pirate.told.missing[LAYER]
    assert torch.equal(weight[known], pirate.told.weights[LAYER][known])
    assert bool((weight[~known] != 0).any())


def test_without_labels_a_layer_that_lacks_nothing_stays_as_it_is() -> None:
    puzzle, answer, _ = defended("rescale")
    pirate = pirate_of(puzzle, answer)
    assert torch.equal(reached(pirate, "told+free")[f"{LAYER}.weight"], pirate.told.weights[LAYER])


def test_a_killed_job_goes_on_after_its_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    puzzle, answer, _ = defended("none", knows="labels")
    first = pirate_of(puzzle, answer, tmp_path).result("told+core")
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(kept) == 8, "left and right, four sizes each"
    monkeypatch.setattr("scatterproof.attacks.training.fitting.Fit._losses", None)  # no training that chooses is left
    again = pirate_of(puzzle, answer, tmp_path).result("told+core")
    assert torch.equal(again.copy.tensors[f"{LAYER}.weight"], first.copy.tensors[f"{LAYER}.weight"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.fixture(scope="module")
def digits() -> tuple[Puzzle, Answer, Judge]:
    """A network on real digits, its layer of 128 x 128; 40 labelled images."""
    puzzle, answer, data = planted_puzzle(0, hidden=128, block=32)
    model = puzzle.model()
    model.get_submodule(LAYER).weight.data = tell(puzzle, answer).weights[LAYER]  # type: ignore[union-attr]
    few = with_images(puzzle, 40)
    return few, answer, Judge(few, answer, model, data, CPU)


def test_the_null_space_is_what_was_withheld_and_a_core_there_wins_it_back(
    digits: tuple[Puzzle, Answer, Judge],
) -> None:
    """The six strongest of 128 directions: what is left gives 56 %, without blocks 84 %, the whole 97 %."""
    puzzle, answer, judge = digits
    hole = without_directions(puzzle, answer, 6)
    shown = directions(hole.told.weights[LAYER])
    assert shown.lost == 6 and spans(hole)
    assert not spans(replace(hole, told=tell(puzzle, answer))), "a layer that lost nothing has no null space"
    pirate = ToldPirate(hole.puzzle, hole.told, TAUGHT, [], Run(Machine(CPU, 1), ("test",)))
    (without,) = make_attack(TAUGHT, "layer").run(puzzle, Run(Machine(CPU, 1), ("test", "layer")))
    core = pirate.result("told+core")
    assert core.support == "null 6"
    reached, as_is = (float(judge.score(each).accuracy) for each in (core.copy, pirate.result("told").copy))
    assert reached > as_is + 0.1 and reached > float(judge.score(without.reached).accuracy)


def test_what_is_missing_is_trained_without_a_label(digits: tuple[Puzzle, Answer, Judge]) -> None:
    puzzle, answer, judge = digits
    unlabelled = replace(puzzle, labels=None, threat=puzzle.threat.model_copy(update={"knows": "none"}))
    hole = without_blocks(unlabelled, answer, 12)
    pirate = ToldPirate(hole.puzzle, hole.told, TAUGHT, [], Run(Machine(CPU, 1), ("test",)))
    free, as_is = (float(judge.score(pirate.result(form).copy).accuracy) for form in ("told+free", "told"))
    assert free > as_is + 0.05


def test_statistics_fit_where_they_are_those_of_the_layer() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(200, 6) * torch.arange(1.0, 7) + 2
    norm = nn.BatchNorm1d(6).eval()
    norm.running_mean, norm.running_var = outputs.mean(0), outputs.var(0)
    tail = torch.fx.symbolic_trace(nn.Sequential(norm, nn.Linear(6, 3)))
    assert float(statistics_loss(outputs, tail)) == pytest.approx(0, abs=1e-9)
    assert float(statistics_loss(outputs + 1, tail)) > 0.1 and float(statistics_loss(2 * outputs, tail)) > 0.1
    reader = nn.Linear(6, 3, bias=False)
    alike = torch.randn(5000, 3) @ reader.weight.detach()
    tail = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU(), reader))
    assert float(statistics_loss(alike, tail)) < 0.01 < float(statistics_loss(outputs, tail))


def test_guesses_are_good_where_each_is_sure_and_all_are_even() -> None:
    sure, unsure = 20 * torch.eye(4), torch.zeros(4, 4)
    same = 20 * torch.eye(4)[:1].expand(4, 4)
    assert float(guessing_loss(sure)) < float(guessing_loss(unsure)) - 1
    assert float(guessing_loss(same)) == pytest.approx(float(guessing_loss(unsure)), abs=1e-3)


def test_forms_run_where_the_images_allow_them() -> None:
    assert granted_forms(FORMS, 100, "labels-base") == list(FORMS)
    assert granted_forms(FORMS, 100, "none") == ["told", "told+free"]
    assert granted_forms(reversed(FORMS), 4, "logits") == ["told", "told+free"]
    assert granted_forms(FORMS, 0, "none") == ["told"]
    grids = [{"images": [0, 100], "ceilings": ["told+free", "told"]}, {"images": [100], "ceilings": []}]
    found = ceilings_on(AttacksConfig.model_validate({"grids": grids}), "layer")
    assert found == {"layer-1-0-none": ["told"], "layer-1-100-none": ["told", "told+free"]}


def test_rows_say_what_was_tried_and_are_taken_for_no_attack() -> None:
    puzzle, answer, judge = defended("rescale", knows="labels")
    other = defended("none")[2].of(puzzle, answer)
    rows = pd.DataFrame(ceiling_rows(other, pirate_of(puzzle, answer), ["told", "told+train"]))
    assert list(rows["attack"]) == ["told", "told+train"] and set(rows["role"]) == {"told"}
    assert rows["last"].all() and (rows["step"] == 0).all() and rows["used"].fillna("").tolist() == ["", "labels"]
    assert rows["params"].str.startswith("forms=told/told+train; ").all()
    assert rows["accuracy"].tolist()[0] == other.known_places.own_accuracy == judge.known_places.own_accuracy
    assert trajectory_table(None, rows).empty
    about = {"victim_seed": 0, "device_minutes": 0.0, "cost_over_retraining": 0.0}
    withheld = rows.iloc[:1].assign(attack="layer", role="withheld", accuracy=0.1)
    table = pd.concat([rows, withheld], ignore_index=True).assign(**about)
    assert chosen(table, "blocks", "withheld")["attack"].tolist() == ["layer"]
    assert state_of("told+core", pd.DataFrame({"attack": ["told+core"], "control": ["x"], "passed": [False]})) == PASSED
    shown = table.assign(
        victim="v", block_size=16, images=20, knows="labels", threat="layer-1-20-labels", control="", keep=1.0
    )
    assert [line[6] for line in leaderboard.rows(shown)] == ["layer"]


@pytest.mark.parametrize("defence", [{"name": "rescale"}, {"name": "home", "share": 0.4}], ids=["rescale", "home"])
def test_each_form_has_a_control_that_passes(defence: object, digits: tuple[Puzzle, Answer, Judge]) -> None:
    puzzle, _, judge = digits
    config = AttacksConfig.model_validate({"layer": TAUGHT.layer.model_dump()})
    controls = Controls(config, judge.victim, puzzle.config, judge.dataset, 32, ("test",), Machine(CPU, 1))
    threat = ThreatModel.model_validate({"images": 100, "knows": "labels", "defence": defence})
    rows = CeilingControls(controls).rows(threat, FORMS)
    assert [row["attack"] for row in rows] == list(FORMS) and {row["control"] for row in rows} == {"told-planted"}
    assert all(row["passed"] for row in rows), rows
    assert {row["threat"] for row in rows} == {threat.name}


def test_a_study_measures_the_ceilings_it_names(finished: Finished) -> None:
    """Beside its attacks; their controls stand in the other table, and neither the page nor the verdict takes them for
    attacks: no attack is the best that is none."""
    tables = finished.folder / RESULTS / "tables"
    attacks, controls = pd.read_csv(tables / "attacks.csv"), pd.read_csv(tables / "controls.csv")
    told = attacks[attacks["role"] == "told"]
    assert set(told["attack"]) == {"told", "told+train", "told+core"} and set(told["threat"]) == {"layer-1-8-labels"}
    assert told["withheld_accuracy"].notna().all() and not told.duplicated(["attack", "victim", "victim_seed"]).any()
    control = controls[controls["control"] == "told-planted"]
    assert set(control["attack"]) == set(told["attack"]) and control["passed"].isin([True, False]).all()
    assert not pd.read_csv(tables / "trajectory.csv")["attack"].isin(FORMS).any()
    assert not pd.read_csv(tables / "verdict.csv")["attack"].isin(FORMS).any()
    stages = pd.read_csv(tables / "cost_summary.csv").set_index("stage")
    assert stages.loc["ceilings", "jobs"] == told["victim_seed"].nunique()
