"""Networks of transformers from a folder: the same function, cut at any dense layer, refused in one line if unfit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import transformers_folders as folders
from scatterproof.command.main import main
from scatterproof.config.dataset import DatasetConfig
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.evaluation.exported import graph_of
from scatterproof.evaluation.readers import reading_weights
from scatterproof.evaluation.split import features, split_at
from scatterproof.evaluation.streams import Streams
from scatterproof.puzzle import Puzzle
from scatterproof.victims.data import read_dataset
from scatterproof.victims.hf.text import Tokenizer, read_lines
from scatterproof.victims.hf.text_network import hf_network
from scatterproof.victims.models import dense_layers, find_layers, layer_inputs, load_weights

KINDS = list(folders.KINDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {kind: folders.write_folder(root / kind, kind) for kind in KINDS}


def victim(folder: Path, **keys: Any) -> VictimConfig:
    return VictimConfig(kind="checkpoint", model=f"hf:{folder}", **keys)


def ids(count: int = 5, length: int = 9) -> torch.Tensor:
    """Token ids, the first text padded."""
    made = torch.randint(5, folders.VOCABULARY, (count, length), generator=torch.Generator().manual_seed(1))
    made[0, 6:] = 0
    return made


def own_answer(folder: Path, kind: str, tokens: torch.Tensor) -> torch.Tensor:
    """What transformers itself makes of token ids."""
    body = folders.KINDS[kind].from_pretrained(folder).eval()
    if kind in ("gpt2", "llama"):
        return body(input_ids=tokens).logits[:, -1]
    given = body(input_ids=tokens, attention_mask=(tokens != 0).long())
    if kind == "classifier":
        return given.logits
    real = (tokens != 0)[..., None].float()
    return torch.nn.functional.normalize((given.last_hidden_state * real).sum(1) / real.sum(1), dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_that_of_the_folder(kind: str, made: dict[str, Path]) -> None:
    classes = 3 if kind == "classifier" else folders.VOCABULARY
    model = hf_network(victim(made[kind]), classes, weights=True)
    with torch.inference_mode():
        answer = model.embed(ids()) if kind in ("bert", "distilbert") else model(ids())
        torch.testing.assert_close(answer, own_answer(made[kind], kind, ids()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])])
def test_cut_at_each_dense_layer_it_is_the_same_network(kind: str, made: dict[str, Path]) -> None:
    """Of other sizes than those that it was traced on; a single input too."""
    model = hf_network(victim(made[kind]), 3 if kind == "classifier" else folders.VOCABULARY, weights=True)
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.ndim == 2 and buffer.is_floating_point():
                buffer.normal_(generator=torch.Generator().manual_seed(0))  # an encoder's index
    layers = {name: layer for name, layer in dense_layers(model).items() if ".0." not in name}
    cut = 0
    assert len(layers) >= 4
    for name, layer in layers.items():
        split = split_at(model, [name])
        for tokens in (ids(), ids(1, 12), ids(3, 4)):
            seen = features(split, [tokens])
            assert seen is not None
            if split.first is None:
                continue
            cut += 1
            with torch.inference_mode():
                assert torch.equal(split.tail(layer(seen[0]), *seen[1:]), model(tokens)), (kind, name)
    unread = {"bert": 1, "classifier": 0, "distilbert": 0, "gpt2": 1, "llama": 1}[kind]  # a pooler, a head of one token
    assert cut >= 3 * (len(layers) - unread)


def test_readers_are_found_through_norms_gates_and_attention(made: dict[str, Path]) -> None:
    def readers(kind: str, name: str) -> torch.Tensor | None:
        model = hf_network(victim(made[kind]), folders.VOCABULARY, weights=True)
        return reading_weights(split_at(model, [name]).tail)

    up, value = "encoder.layer.0.intermediate.dense", "encoder.layer.0.attention.self.value"
    bert = hf_network(victim(made["bert"]), folders.VOCABULARY, weights=True)
    layers = dense_layers(bert)
    assert torch.equal(readers("bert", up), layers["encoder.layer.0.output.dense"].weight)
    assert torch.equal(readers("bert", value), layers["encoder.layer.0.attention.output.dense"].weight)
    down = readers("bert", "encoder.layer.0.output.dense")
    norm = bert.get_submodule("encoder.layer.0.output.LayerNorm").weight
    query = layers["encoder.layer.1.attention.self.query"].weight * norm
    centred = query - query.mean(1, keepdim=True)
    assert any(torch.allclose(part, centred) for part in down.split(32))
    llama = hf_network(victim(made["llama"]), folders.VOCABULARY, weights=True)
    gate = readers("llama", "model.layers.1.mlp.gate_proj")
    assert torch.equal(gate, dense_layers(llama)["model.layers.1.mlp.down_proj"].weight)
    assert readers("gpt2", "transformer.h.1.mlp.c_fc").shape == (32, 128)


def test_partners_of_neurons(made: dict[str, Path]) -> None:
    model = hf_network(victim(made["bert"]), folders.VOCABULARY, weights=True)
    layers, streams = dense_layers(model), Streams(model)
    pairs = {
        "intermediate.dense": ("output.dense", "rows"),
        "output.dense": ("intermediate.dense", "columns"),
        "attention.self.value": ("attention.output.dense", "rows"),
        "attention.output.dense": ("attention.self.value", "columns"),
    }
    for name, (other, neurons) in pairs.items():
        partner = streams.partner(f"encoder.layer.1.{name}")
        assert partner is not None and partner.neurons == neurons
        assert torch.equal(partner.weight, layers[f"encoder.layer.1.{other}"].weight.T)
    query = streams.partner("encoder.layer.1.attention.self.query")
    assert torch.equal(query.weight, layers["encoder.layer.1.attention.self.key"].weight)
    writers = {f"encoder.layer.{at}.{name}.dense" for at in (0, 1) for name in ("output", "attention.output")}
    assert set(streams.writers("encoder.layer.0.output.dense")) == writers - {"encoder.layer.0.output.dense"}
    assert streams.partner("pooler.dense") is None


def test_an_unknown_partner_is_none(made: dict[str, Path]) -> None:
    model = hf_network(victim(made["bert"]), folders.VOCABULARY, weights=True)
    dense_layers(model)["encoder.layer.0.output.dense"].weight.data.zero_()
    assert Streams(model).partner("encoder.layer.0.intermediate.dense") is None


def test_padding_is_no_input_of_a_layer(made: dict[str, Path]) -> None:
    model = hf_network(victim(made["bert"]), folders.VOCABULARY, weights=True)
    (seen,) = layer_inputs(model, dense_layers(model)["encoder.layer.0.intermediate.dense"], [ids()])
    assert len(seen) == int((ids() != 0).sum())


def test_the_attacker_reads_the_configuration_alone(made: dict[str, Path], tmp_path: Path) -> None:
    """Without the folder's weights the network can still be built."""
    bare = tmp_path / "bare"
    shutil.copytree(made["gpt2"], bare, ignore=shutil.ignore_patterns("*.safetensors"))
    model = hf_network(victim(bare), folders.VOCABULARY)
    load_weights(model, hf_network(victim(made["gpt2"]), folders.VOCABULARY, weights=True).state_dict(), "the folder")


def test_tied_weights_are_saved(made: dict[str, Path], tmp_path: Path) -> None:
    from scatterproof.config.threat import ThreatModel
    from scatterproof.cutting import make_puzzle

    data = read_dataset(text_config(made["gpt2"], folders.write_text(tmp_path / "text.txt")))
    config = victim(made["gpt2"], layer="transformer.h.0.mlp.c_fc")
    model = hf_network(config, data.classes, weights=True)
    puzzle, _ = make_puzzle(model, config, data, ThreatModel(images=3), 8, (0, "small", 0))
    puzzle.save(tmp_path / "puzzle.safetensors")
    assert Puzzle.load(tmp_path / "puzzle.safetensors").digest == puzzle.digest


def test_layers_by_patterns(made: dict[str, Path]) -> None:
    model = hf_network(victim(made["bert"]), folders.VOCABULARY)
    assert find_layers(model, ["encoder.layer.*.intermediate.dense"]) == [
        f"encoder.layer.{at}.intermediate.dense" for at in (0, 1)
    ]
    with pytest.raises(UserError, match=r"victim.layers 'encoder.\*.up': names no dense layer"):
        find_layers(model, ["encoder.*.up"])


def text_config(folder: Path, path: Path, **keys: Any) -> DatasetConfig:
    return DatasetConfig(kind="text", path=str(path), tokenizer=str(folder), **{"length": 16, **keys})


def test_text_as_windows_of_the_next_token(made: dict[str, Path], tmp_path: Path) -> None:
    data = read_dataset(text_config(made["gpt2"], folders.write_text(tmp_path / "text.txt")))
    assert data.test.images.shape[1] == 16 and data.classes <= folders.VOCABULARY
    windows = torch.cat([data.test.images, data.test.labels[:, None]], 1)
    stream = Tokenizer(str(made["gpt2"])).windows(read_lines(tmp_path / "text.txt").texts, 17, 4)
    assert all((stream == window).all(1).any() for window in windows[:5])
    trained = {tuple(each.tolist()) for each in data.victim.images}
    assert not trained & {tuple(each.tolist()) for each in data.test.images}


def test_text_with_targets(made: dict[str, Path], tmp_path: Path) -> None:
    lines = [f"{text}\t{'long' if len(text) > 80 else 'short'}" for text in folders.sentences()[:200]]
    (tmp_path / "text.tsv").write_text("\n".join(lines))
    data = read_dataset(text_config(made["classifier"], tmp_path / "text.tsv"))
    assert data.classes == 2 and len(data.test) == 40
    (tmp_path / "index.txt").write_text("\n".join(["long", "short", *folders.sentences()[200:230]]))
    data = read_dataset(text_config(made["bert"], tmp_path / "text.tsv", index=str(tmp_path / "index.txt")))
    assert data.classes == 32 and int(data.test.labels.max()) == 1


BAD_FOLDERS = {
    "no such folder": (lambda path: shutil.rmtree(path), "no such folder"),
    "no configuration": (lambda path: (path / "config.json").unlink(), "has no config.json"),
    "damaged configuration": (lambda path: (path / "config.json").write_text("{"), "config.json can't be read"),
    "no model type": (lambda path: (path / "config.json").write_text("{}"), "names no model_type"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors"),
    "pickled weights": (
        lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
        "refused: its weights are pickled alone",
    ),
    "its own code": (lambda path: _set(path, auto_map={"AutoModel": "x.Y"}), "needs Python code of its own"),
    "quantised": (lambda path: _set(path, quantization_config={"bits": 4}), "its weights are quantised"),
    "another task": (lambda path: _set(path, architectures=["BertForTokenClassification"]), "is not supported"),
    "an unknown type": (lambda path: _set(path, model_type="nonesuch"), "transformers can't load it"),
}


def _set(path: Path, **keys: Any) -> None:
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(settings | keys))


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_an_unfit_folder_is_refused_in_one_line(fault: str, made: dict[str, Path], tmp_path: Path) -> None:
    spoil, expected = BAD_FOLDERS[fault]
    folder = tmp_path / "model"
    shutil.copytree(made["bert"], folder)
    spoil(folder)
    with pytest.raises(UserError) as error:
        hf_network(victim(folder), 10, weights=True)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("victim.model 'hf:")


BAD_TEXTS = {
    "a tokenizer missing": (lambda folder, path: [each.unlink() for each in folder.glob("token*")], "has no tokenizer"),
    "few lines": (lambda folder, path: path.write_text("one\ntwo\n"), "has 2 lines of text, expected at least 20"),
    "bytes": (lambda folder, path: path.write_bytes(b"\xff\xfe" * 50), "is no UTF-8 text"),
    "some tabs": (lambda folder, path: path.write_text("a\tb\n" * 20 + "c\n"), "line 21 has 1 parts"),
    "no target": (lambda folder, path: path.write_text("a\t\n" * 20 + "c\td\n"), "parts, expected TEXT alone"),
}


@pytest.mark.parametrize("fault", BAD_TEXTS)
def test_unfit_text_is_refused_in_one_line(fault: str, made: dict[str, Path], tmp_path: Path) -> None:
    spoil, expected = BAD_TEXTS[fault]
    folder, path = tmp_path / "model", folders.write_text(tmp_path / "text.txt")
    shutil.copytree(made["gpt2"], folder)
    spoil(folder, path)
    with pytest.raises(UserError) as error:
        read_dataset(text_config(folder, path))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_network_that_can_not_be_traced_has_no_graph() -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    assert graph_of(Branching()) is None


def test_its_dense_layers_are_listed(made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("classifier", "gpt2"):
        assert main(["layers", f"hf:{made[kind]}"]) == 0
    said = capsys.readouterr().out
    assert "for a text of 7 tokens" in said and "transformer.h.1.mlp.c_proj" in said
    assert "encoder.layer.0.intermediate.dense" in said and "nothing: they give the logits" in said
