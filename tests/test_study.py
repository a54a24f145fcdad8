"""A study that cannot be run is refused in one line per problem, naming the file, the key and the value."""

from pathlib import Path
from typing import Any

import pytest

from scatterproof.config.attacks import AttacksConfig, attacks_on
from scatterproof.config.study import Study, StudyError, parse_study, read_study

# What is wrong, the study's keys besides its name, and what each line must name, line by line
BAD: list[tuple[str, dict[str, Any], list[list[str]]]] = [
    ("unknown key", {"sede": 17}, [["sede", "unknown key"]]),
    ("unknown key in a section", {"victim": {"train": {"epoch": 17}}}, [["victim.train.epoch", "unknown key"]]),
    ("unknown section", {"prunes": {"keep": [0.5]}}, [["prunes", "unknown key"]]),
    ("text for a number", {"seed": "seventeen"}, [["seed", "'seventeen'"]]),
    ("quoted number", {"seed": "17"}, [["seed", "'17'"]]),
    ("number that YAML reads as text", {"victim": {"train": {"lr": "1e-3"}}}, [["victim.train.lr", "'1e-3'"]]),
    ("true for a number", {"prune": {"repeats": True}}, [["prune.repeats", "True"]]),
    ("fraction for a whole number", {"victim": {"train": {"epochs": 1.5}}}, [["victim.train.epochs", "1.5"]]),
    ("number for a list", {"block_sizes": 17}, [["block_sizes", "17"]]),
    ("number for a section", {"victim": 17}, [["victim", "17"]]),
    ("attack of no such victim", {"attacks": {"victims": ["other"]}}, [["attacks.victims", "'other'"]]),
    ("attack twice on one victim", {"attacks": {"victims": ["victim"] * 2}}, [["attacks.victims", "twice"]]),
    ("unknown attack", {"attacks": {"grids": [{"attacks": ["guess"]}]}}, [["attacks.grids.0.attacks.0", "'guess'"]]),
    ("attack without blocks", {"attacks": {"grids": [{"keep": [0]}]}}, [["attacks.grids.0.keep.0", "0"]]),
    ("fewer than no images", {"attacks": {"grids": [{"images": [-1]}]}}, [["attacks.grids.0.images.0", "-1"]]),
    ("stream of no such victim", {"stream": {"victims": ["other"]}}, [["stream.victims", "'other'"]]),
    ("stream grid of a stranger", {"stream": {"grids": [{"victims": ["x"]}]}}, [["stream.grids.victims", "'x'"]]),
    (
        "mixes under a coordinator",
        {"stream": {"grids": [{"topologies": ["coordinator"], "obfuscations": [{"relays": 1}]}]}},
        [["stream.grids", "coordinator with relays"]],
    ),
    ("nothing seen", {"stream": {"grids": [{"observed": [0.0]}]}}, [["stream.grids", "observed 0 with held 0"]]),
    (
        "batch of no mix",
        {"stream": {"grids": [{"obfuscations": [{"batch": 8}]}]}},
        [["stream", "batch 8 needs relays"]],
    ),
    (
        "learned on packed devices",
        {"stream": {"grids": [{"hijacks": ["learned"], "obfuscations": [{"per_device": 2}]}]}},
        [["stream.grids", "learned", "per_device 2"]],
    ),
    (
        "blocks held in fresh layouts",
        {"stream": {"grids": [{"held": [0.5], "obfuscations": [{"session": 2}]}]}},
        [["stream.grids", "session goes with held 0"]],
    ),
    ("shares alike", {"attacks": {"grids": [{"keep": [0.5, 0.50000001]}]}}, [["attacks.grids", "six digits"]]),
    ("nothing for a section", {"prune": None}, [["prune", "None"]]),
    ("not a number", {"victim": {"train": {"lr": float("nan")}}}, [["victim.train.lr", "nan"]]),
    ("choice that is none", {"scatter": "everything"}, [["scatter", "'everything'", "'dense'"]]),
    ("kept share above 1", {"prune": {"keep": [0.5, 1.5]}}, [["prune.keep.1", "1.5"]]),
    ("kept share below 0", {"shuffle": {"keep": [-0.1]}}, [["shuffle.keep.0", "-0.1"]]),
    ("no share held in theory", {"theory": {"keep": [0.0]}}, [["theory.keep.0", "0.0"]]),
    ("block of no size", {"block_sizes": [0]}, [["block_sizes.0", "0"]]),
    ("no block size", {"block_sizes": []}, [["block_sizes", "[]"]]),
    ("block size twice", {"block_sizes": [8, 8]}, [["block_sizes", "[8, 8]"]]),
    ("npz without path", {"dataset": {"kind": "npz"}}, [["dataset.path", "'npz'"]]),
    ("folder without path", {"dataset": {"kind": "folder"}}, [["dataset.path", "'folder'"]]),
    ("folder without size", {"dataset": {"kind": "folder", "path": "x"}}, [["dataset.image_size", "'folder'"]]),
    ("checkpoint without file", {"victim": {"kind": "checkpoint"}}, [["victim.checkpoint", "'checkpoint'"]]),
    ("file without checkpoint", {"victim": {"checkpoint": "x.pt"}}, [["victim.checkpoint", "'train'"]]),
    ("unknown model", {"victim": {"model": "vgg17"}}, [["victim.model", "'vgg17'"]]),
    ("odd input size", {"victim": {"input_size": 33}}, [["victim.input_size", "33"]]),
    ("seed twice", {"victim": {"seeds": [1, 2, 1]}}, [["victim.seeds", "[1, 2, 1]"]]),
    ("no seed", {"victim": {"seeds": []}}, [["victim.seeds", "[]"]]),
    (
        "control with an unknown key",
        {"further_victims": {"c": {"widht": 1}}},
        [["further_victims.c.widht", "unknown key"]],
    ),
    (
        "control with a bad value",
        {"further_victims": {"c": {"width": "wide"}}},
        [["further_victims.c.width", "'wide'"]],
    ),
    ("control that is no mapping", {"further_victims": {"c": 28}}, [["further_victims.c", "28"]]),
    ("control named as the victim", {"further_victims": {"victim": {}}}, [["further_victims.victim", "'victim'"]]),
    ("bad name of a control", {"further_victims": {"Copy-Free": {}}}, [["further_victims.Copy-Free", "'Copy-Free'"]]),
    ("bad name of the study", {"study": "a/b"}, [["study", "'a/b'"]]),
    ("negative budget", {"budget": {"gpu_hours": -1}}, [["budget.gpu_hours", "-1", "greater than or equal to 0"]]),
    ("no population", {"search": {"grids": [{"populations": [0]}]}}, [["search.grids.0.populations.0", "0"]]),
    ("population of one", {"search": {"grids": [{"populations": [9, 1]}]}}, [["search.grids", "[9, 1]", "at least 2"]]),
    ("no share held in a search", {"search": {"grids": [{"keep": [0.0]}]}}, [["search.grids.0.keep.0", "0.0"]]),
    ("unknown attack", {"search": {"grids": [{"attacks": ["luck"]}]}}, [["search.grids.0.attacks.0", "'luck'"]]),
    ("unknown crossover", {"search": {"genetic": {"crossover": "u"}}}, [["search.genetic.crossover", "'u'"]]),
    ("unknown mutation", {"search": {"genetic": {"mutation": "flip"}}}, [["search.genetic.mutation", "'flip'"]]),
    ("no tournament", {"search": {"genetic": {"tournament": 0}}}, [["search.genetic.tournament", "0"]]),
    (
        "tournament larger than a population",
        {"search": {"grids": [{"populations": [20, 8]}], "genetic": {"tournament": 9}}},
        [["search.genetic.tournament 9", "expected 1 to the population of 8"]],
    ),
    ("no evaluations", {"search": {"grids": [{"evaluations": 0}]}}, [["search.grids.0.evaluations", "0"]]),
    ("search of no victim", {"search": {"victims": ["x"]}}, [["search.victims", "'x'", "expected victim"]]),
    ("search of a victim twice", {"search": {"victims": ["victim"] * 2}}, [["search.victims", "twice"]]),
    ("no seed searched", {"search": {"victim_seeds": 0}}, [["search.victim_seeds", "0"]]),
    ("tf32 on a CPU", {"search": {"precision": "tf32"}, "run": {"device": "cpu"}}, [["search.precision", "cpu"]]),
    ("uneven minibatch", {"search": {"reinforce": {"minibatch": 100}}}, [["search.reinforce.steps 256", "100"]]),
    ("uneven walks", {"search": {"reinforce": {"walks": 3}}}, [["search.reinforce.steps 256", "walks 3"]]),
    (
        "gradient where all dense layers are scattered",
        {
            "scatter": "dense",
            "prune": {"corrections": ["none"]},
            "search": {"grids": [{"attacks": ["hill_climbing"]}], "hill_climbing": {"proposals": "gradient"}},
        },
        [["search.hill_climbing.proposals", "'gradient'", "scatter: layer"]],
    ),
    (
        "gradient of an attack where all dense layers are scattered",
        {
            "scatter": "dense",
            "prune": {"corrections": ["none"]},
            "attacks": {
                "grids": [{"attacks": ["hill_climbing"], "knows": ["labels"]}],
                "hill_climbing": {"proposals": "gradient"},
            },
        },
        [["attacks.hill_climbing.proposals", "'gradient'", "scatter: layer"]],
    ),
    ("plateau of too few draws", {"plateau": {"draws": 9}}, [["plateau.draws", "9"]]),
    ("plateau share above 1", {"plateau": {"correct": [1.5]}}, [["plateau.correct.0", "1.5"]]),
    (
        "recipe with an unknown key",
        {"retraining": {"recipes": {"fast": {"epoch": 3}}}},
        [["retraining.recipes.fast.epoch", "unknown key"]],
    ),
    (
        "recipe with a bad value",
        {"retraining": {"pirate_recipes": {"p": {"lr": 0}}, "pirate_images": [9]}},
        [["retraining.pirate_recipes.p.lr", "0"]],
    ),
    ("recipe without a name", {"retraining": {"recipes": {"": {"epochs": 3}}}}, [["retraining.recipes.", "''"]]),
    ("recipe named as the own", {"retraining": {"recipes": {"own": {}}}}, [["retraining.recipes.own", "'own'"]]),
    ("recipe that is no mapping", {"retraining": {"recipes": {"fast": 3}}}, [["retraining.recipes.fast", "3"]]),
    ("too few images of the pirate's", {"retraining": {"pirate_images": [1]}}, [["retraining.pirate_images.0", "1"]]),
    ("images twice", {"retraining": {"pirate_images": [9, 9]}}, [["retraining.pirate_images", "[9, 9]", "twice"]]),
    ("retraining of no victim", {"retraining": {"victims": ["x"]}}, [["retraining.victims", "'x'", "expected victim"]]),
    ("two problems", {"seed": -1, "prune": {"repeats": 0}}, [["seed", "-1"], ["prune.repeats", "0"]]),
]


@pytest.mark.parametrize(("keys", "named"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_study(keys: dict[str, Any], named: list[list[str]]) -> None:
    with pytest.raises(StudyError) as caught:
        parse_study({"study": "x"} | keys, "config/x.yaml")
    lines = str(caught.value).split("\n")
    assert len(lines) == len(named), lines
    for line, words in zip(lines, named, strict=True):
        assert line.startswith(f"config/x.yaml: {words[0]}"), line
        assert all(word in line for word in words), line


def test_name_is_required() -> None:
    with pytest.raises(StudyError, match=r"^config/x.yaml: study: .*required[^\n]*$"):
        parse_study({}, "config/x.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "mapping"),
        ("- study\n- x\n", "list"),
        ("just text\n", "str"),
        ("study: x\n  seed: 0\n", "line 2"),
        ("study: [x\n", "line 2"),
        ("study: x\n\tseed: 0\n", "line 2"),
    ],
    ids=["empty", "list", "text", "indented", "unclosed", "tab"],
)
def test_bad_file(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        read_study(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert named in message


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"study: \xff\xfe\n")
    with pytest.raises(StudyError, match=r"bad\.yaml: [^\n]*$"):
        read_study(path)


def test_good_study(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(
        "study: good\n"
        "victim: {width: 0.25, seeds: [0, 1], train: {epochs: 3, lr: 1}}\n"
        "controls: {copy_free: {input_size: 28, train: {lr: 0.5}}}\n"
        "prune: {keep: [0, 1]}\n"
    )
    study = read_study(path)
    assert study.victims == [("victim", 0), ("victim", 1), ("copy_free", 0), ("copy_free", 1)]
    control = study.victim_config("copy_free")
    assert (control.input_size, control.width, control.train.lr, control.train.epochs) == (28, 0.25, 0.5, 3)
    assert Study.model_validate(study.model_dump()) == study


def test_each_threat_has_its_attacks_once_and_without_images_nothing_is_known_of_them() -> None:
    config = AttacksConfig.model_validate(
        {"grids": [{"keep": [1.0, 0.5], "images": [0, 100], "knows": ["none", "labels"]}, {"images": [100]}]}
    )
    found = attacks_on(config, "layer")
    names = {f"layer-{keep}-{rest}" for keep in ("1", "0.5") for rest in ("0-none", "100-none", "100-labels")}
    assert found.keys() == names
    for threat, attacks in found.values():
        known = threat.knows != "none"
        assert attacks == ["fingerprint", "nothing", *(["layer"] if known else [])], "what a verdict is set against"
    assert all(threat.name == name for name, (threat, _) in found.items())


def test_the_older_name_of_further_victims_is_read() -> None:
    keys = {"copy_free": {"input_size": 28}}
    older, newer = (parse_study({"study": "s", name: keys}, "s.yaml") for name in ("controls", "further_victims"))
    assert older == newer and newer.names == ["victim", "copy_free"]
    with pytest.raises(StudyError, match=r"^s.yaml: controls: the older name of further_victims, which is given too"):
        parse_study({"study": "s", "controls": {}, "further_victims": {}}, "s.yaml")
