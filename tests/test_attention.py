"""PyTorch's attention with its projections as dense layers: the same answers, weights under either name, cut there."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from scatterproof.config.victim import VictimConfig
from scatterproof.evaluation.split import features, split_at
from scatterproof.victims.models import build_model, dense_layers, load_checkpoint
from scatterproof.victims.networks.attention import ProjectedAttention, with_projections

WIDTH, HEADS, TOKENS, BATCH = 12, 3, 5, 4
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def padding(boolean: bool) -> torch.Tensor:
    hidden = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    hidden[1, 3:] = hidden[2, 4:] = True
    return hidden if boolean else torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    bias=st.booleans(),
    batch_first=st.booleans(),
    mask=st.sampled_from(["none", "boolean", "added", "of heads"]),
    hidden=st.sampled_from(["none", "boolean", "added"]),
    weights=st.sampled_from(["none", "mean", "each"]),
    other=st.booleans(),
)
def test_it_answers_as_pytorchs(
    seed: int, bias: bool, batch_first: bool, mask: str, hidden: str, weights: str, other: bool
) -> None:
    torch.manual_seed(seed)
    fused = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=batch_first).eval()
    nn.init.normal_(fused.in_proj_weight)
    shape = (BATCH, TOKENS, WIDTH) if batch_first else (TOKENS, BATCH, WIDTH)
    query = torch.randn(shape)
    key = torch.randn(shape) if other else query
    causal = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
    masks = {
        "none": None,
        "boolean": causal,
        "added": torch.zeros(TOKENS, TOKENS).masked_fill(causal, -torch.inf),
        "of heads": torch.randn(BATCH * HEADS, TOKENS, TOKENS),
    }
    called = {
        "attn_mask": masks[mask],
        "key_padding_mask": None if hidden == "none" else padding(hidden == "boolean"),
        "need_weights": weights != "none",
        "average_attn_weights": weights == "mean",
    }
    expected, shares = fused(query, key, key, **called)
    answer, mine = with_projections(fused)(query, key, key, **called)
    torch.testing.assert_close(answer, expected, **CLOSE)
    assert (shares is None) == (mine is None)
    if shares is not None:
        torch.testing.assert_close(mine, shares, **CLOSE)


@pytest.mark.parametrize("batch_first", [True, False])
def test_one_sequence_without_a_batch(batch_first: bool) -> None:
    torch.manual_seed(0)
    fused, query = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first).eval(), torch.randn(TOKENS, WIDTH)
    expected, shares = fused(query, query, query)
    answer, mine = with_projections(fused)(query, query, query)
    torch.testing.assert_close(answer, expected, **CLOSE)
    torch.testing.assert_close(mine, shares, **CLOSE)


def encoder(norm_first: bool = False, batch_first: bool = True) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 20, norm_first=norm_first, batch_first=batch_first, activation="gelu"
    )
    stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False).eval()
    for weight in stack.parameters():
        nn.init.normal_(weight, std=0.3)
    return stack


@pytest.mark.parametrize("norm_first, batch_first, masked", list(product([False, True], repeat=3)))
def test_a_stack_of_encoder_layers(norm_first: bool, batch_first: bool, masked: bool) -> None:
    torch.manual_seed(0)
    stack = encoder(norm_first, batch_first)
    x = torch.randn((BATCH, TOKENS, WIDTH) if batch_first else (TOKENS, BATCH, WIDTH))
    called = {"mask": nn.Transformer.generate_square_subsequent_mask(TOKENS)} if masked else {}
    with torch.no_grad():
        expected = stack(x, **called, src_key_padding_mask=padding(True) if masked else None)
        answer = with_projections(stack)(x, **called, src_key_padding_mask=padding(True) if masked else None)
    torch.testing.assert_close(answer, expected, **CLOSE)


def test_a_decoder_reads_another_sequence() -> None:
    torch.manual_seed(0)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, HEADS, 20, batch_first=True), 2).eval()
    x, memory = torch.randn(BATCH, TOKENS, WIDTH), torch.randn(BATCH, 7, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(TOKENS)
    expected = decoder(x, memory, tgt_mask=mask)
    torch.testing.assert_close(with_projections(decoder)(x, memory, tgt_mask=mask), expected, **CLOSE)


@pytest.mark.parametrize("odd", [{"kdim": 7, "vdim": 7}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_attention_of_another_form_stays_as_it_is(odd: dict[str, object]) -> None:
    model = nn.Sequential(nn.MultiheadAttention(WIDTH, HEADS, **odd))
    assert type(with_projections(model)[0]) is nn.MultiheadAttention


class Classifier(nn.Module):
    """A user's transformer: patches of an image, PyTorch's own encoder, a head."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.embed = nn.Linear(48, WIDTH)
        self.encoder = encoder()
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        return self.head(self.encoder(self.embed(tokens)).mean(1))  # type: ignore[no-any-return]


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return Classifier()


CONFIG = VictimConfig(model="test_attention:classifier", input_size=8)


def test_a_network_is_cut_at_every_layer_of_its_transformer() -> None:
    """And answers as it did."""
    model, images = build_model(CONFIG, 10).eval(), torch.randn(BATCH, 3, 8, 8)
    torch.testing.assert_close(model(images), classifier().eval()(images), **CLOSE)
    names = [name for name in dense_layers(model) if name.startswith("encoder")]
    assert len(names) == 8 and "encoder.layers.1.self_attn.in_proj" in names
    for name in names:
        split = split_at(model, [name])
        assert split.first == name
        first, *around = features(split, [images])
        rest = split.tail(dense_layers(model)[name](first), *around)
        torch.testing.assert_close(rest, model(images), **CLOSE)


def test_weights_are_taken_under_pytorchs_names(tmp_path) -> None:
    """And under a wrapper's prefix."""
    saved = classifier()
    assert any(name.endswith("in_proj_weight") for name in saved.state_dict())
    images = torch.randn(BATCH, 3, 8, 8)
    for prefix in ("", "model."):
        save_file({prefix + name: value for name, value in saved.state_dict().items()}, tmp_path / "own.safetensors")
        model = build_model(CONFIG, 10).eval()
        for weight in model.parameters():
            nn.init.zeros_(weight)
        load_checkpoint(model, str(tmp_path / "own.safetensors"), "victim.checkpoint")
        torch.testing.assert_close(model(images), saved.eval()(images), **CLOSE)


def test_torchvisions_transformer_has_its_projections() -> None:
    model = build_model(VictimConfig(model="torchvision:vit_b_32"), 10)
    assert isinstance(model.encoder.layers[0].self_attention, ProjectedAttention)
    assert len([name for name in dense_layers(model) if name.endswith(("in_proj", "out_proj"))]) == 24
