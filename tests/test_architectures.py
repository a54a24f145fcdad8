"""Architectures of transformers that people publish: cut at every dense layer that is called once, the same network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import transformers_folders as folders
from scatterproof.command.main import main
from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.split import features, split_at
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.hf.text_network import hf_network
from scatterproof.victims.models import dense_layers

transformers = folders.transformers
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
TEXT = SIZES | {"vocab_size": folders.VOCABULARY, "max_position_embeddings": 66, "pad_token_id": 0}
ENDS = {"bos_token_id": 4, "eos_token_id": 4}
ENCODERS = {
    "RobertaModel": TEXT,
    "MPNetModel": TEXT,
    "ElectraModel": TEXT | {"embedding_size": 32},
    "DebertaV2Model": TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "T5EncoderModel": {
        "vocab_size": folders.VOCABULARY, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
    },
    "BertForMaskedLM": TEXT,
}  # fmt: skip
LANGUAGE = {
    "GPTNeoForCausalLM": {
        "vocab_size": folders.VOCABULARY, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64,
        "attention_types": [[["global"], 2]], "max_position_embeddings": 64,
    },
    "GPTNeoXForCausalLM": TEXT,
    "OPTForCausalLM": TEXT | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Qwen2ForCausalLM": TEXT | {"num_key_value_heads": 1},
    "PhiForCausalLM": TEXT,
    "BloomForCausalLM": {"vocab_size": folders.VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 2},
}  # fmt: skip
IMAGES = {"ViTForImageClassification": SIZES | {"image_size": 32, "patch_size": 8, "num_labels": 10}}
POSITIONS_READ_LAYERS = ("DebertaV2Model",)  # most of its layers are run as a whole
RUN_WHOLE = {  # where features are not held: inputs lose their own axis
    "OPTForCausalLM": ("fc1", "fc2"),
}
EVERY = ENCODERS | LANGUAGE | IMAGES
QUICK = ("RobertaModel", "T5EncoderModel", "GPTNeoForCausalLM", "ViTForImageClassification")


def write(path: Path, name: str, **more: Any) -> Path:
    """An untrained network of this class, as save_pretrained writes it."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    kind(kind.config_class(**EVERY[name] | (ENDS if name in LANGUAGE else {}) | more)).save_pretrained(path)
    return path


def network(path: Path, classes: int) -> Any:
    return hf_network(VictimConfig(kind="checkpoint", model=f"hf:{path}"), classes, weights=True)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in EVERY])
def test_it_is_cut_at_every_dense_layer_that_is_called(name: str, tmp_path: Path) -> None:
    model = network(write(tmp_path, name), 10)
    inputs = torch.randn(3, 3, 32, 32) if name in IMAGES else torch.randint(5, folders.VOCABULARY, (3, 9))
    with torch.no_grad():
        for buffer in model.buffers():
            if buffer.ndim == 2 and buffer.is_floating_point() and not bool(buffer.any()):
                buffer.normal_()  # an encoder's index
    layers = {each: layer for each, layer in dense_layers(model).items() if "pooler" not in each}
    assert len(layers) >= 8
    for each, layer in layers.items():
        split = split_at(model, [each])
        seen = features(split, [inputs])
        unheld = seen is None or split.first is None
        whole = RUN_WHOLE.get(name, ())
        assert (
            each == "lm_head"
            or name in POSITIONS_READ_LAYERS
            or unheld == any(part in each.split(".") for part in whole)
        ), each
        if seen is not None and split.first is not None:
            with torch.inference_mode():
                answer = split.tail(layer(seen[0]), *seen[1:])
                torch.testing.assert_close(answer, model(inputs), rtol=1e-4, atol=1e-5)


def test_a_classifier_of_images_is_audited_on_its_own_scale(tmp_path: Path) -> None:
    path = write(tmp_path / "vit", "ViTForImageClassification")
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    rng = np.random.default_rng(0)
    arrays = {
        f"{axis}_{part}": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        if axis == "x"
        else np.arange(count) % 10
        for part, count in (("train", 200), ("test", 60))
        for axis in "xy"
    }
    np.savez(tmp_path / "own.npz", **arrays)
    from scatterproof.auditing.audited import read_victim

    victim = read_victim(f"hf:{path}", str(tmp_path / "own.npz"))
    assert victim.dataset.mean == victim.dataset.std == (0.5, 0.5, 0.5)
    own = transformers.ViTForImageClassification.from_pretrained(path).eval()
    images = torch.from_numpy(arrays["x_test"][:4]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        torch.testing.assert_close(victim.model(images), own(images).logits, rtol=1e-5, atol=1e-6)
    assert main(["audit", f"hf:{path}", "--data", str(tmp_path / "own.npz"), "--blocks", "8", "--inputs", "10",
                 "--out", str(tmp_path / "out")]) == 0  # fmt: skip


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "ViTForImageClassification", image_size=64)
    with pytest.raises(ModelError, match="takes images of 64 pixels a side, expected 64"):
        network(tmp_path, 10)


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    kind = transformers.T5Model
    kind(kind.config_class(**ENCODERS["T5EncoderModel"])).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is an encoder and a decoder, expected an encoder alone"):
        network(tmp_path, 10)
