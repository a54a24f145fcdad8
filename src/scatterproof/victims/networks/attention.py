"""Attention whose projections are dense layers of their own, in place of `nn.MultiheadAttention`'s.

PyTorch's attention keeps the projections of query, key and value in one bare weight, calls no layer of its own as a
module, and is opaque to torch.fx, as PyTorch's transformer layers are. The networks here give the same answers:
`in_proj` holds the three projections one above the other, `out_proj` is what follows. Other weights keep their names.
"""

import torch
from torch import nn
from torch.nn import functional as F

# What PyTorch's attention calls the weights of `in_proj`
FUSED = {"in_proj_weight": "in_proj.weight", "in_proj_bias": "in_proj.bias"}


class ProjectedAttention(nn.Module):
    """What an `nn.MultiheadAttention` answers, by dense layers `in_proj` [3 width, width] and `out_proj`.

    Where query, key and value are not one tensor, parts of `in_proj` are applied without a call of it.
    """

    in_proj_weight = in_proj_bias = None  # PyTorch's layers look here, and take no short cut past this module
    _qkv_same_embed_dim = False

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads, self.head_dim = fused.embed_dim, fused.num_heads, fused.head_dim
        self.batch_first, self.dropout = fused.batch_first, fused.dropout
        self.in_proj = _dense(fused.in_proj_weight, fused.in_proj_bias)
        self.out_proj = _dense(fused.out_proj.weight, fused.out_proj.bias)
        self.train(fused.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `nn.MultiheadAttention.forward`; the mask alone says what is causal."""
        if isinstance(query, torch.Tensor) and query.ndim == 2:
            return self._of_one(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights)
        queries, keys, values = self._projected(query, key, value)
        mask = self._mask(attn_mask, key_padding_mask, queries)
        dropped, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            products = queries / self.head_dim**0.5 @ keys.transpose(-2, -1)
            weights = F.dropout((products if mask is None else products + mask).softmax(-1), dropped)
            read = weights @ values
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropped)
        merged = read.transpose(1, 2).flatten(2)
        return self.out_proj(merged if self.batch_first else merged.transpose(0, 1)), weights

    def _of_one(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        padding: torch.Tensor | None,
        need_weights: bool,
        attn_mask: torch.Tensor | None,
        average: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of one sequence [tokens, width] without a batch."""
        axis = 0 if self.batch_first else 1
        queries = query.unsqueeze(axis)
        keys = queries if key is query else key.unsqueeze(axis)
        values = keys if value is key else value.unsqueeze(axis)
        hidden = None if padding is None else padding.unsqueeze(0)
        output, weights = self(queries, keys, values, hidden, need_weights, attn_mask, average)
        return output.squeeze(axis), None if weights is None else weights.squeeze(0)

    def _projected(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of each head [batch, heads, tokens, values of a head]."""
        if query is key and key is value:
            queries, keys, values = self.in_proj(query).chunk(3, -1)
        else:
            weights, bias = self.in_proj.weight.chunk(3), self.in_proj.bias
            biases = (None, None, None) if bias is None else bias.chunk(3)
            queries, keys, values = map(F.linear, (query, key, value), weights, biases)
        return self._heads(queries), self._heads(keys), self._heads(values)

    def _heads(self, values: torch.Tensor) -> torch.Tensor:
        first = values if self.batch_first else values.transpose(0, 1)
        heads: torch.Tensor = first.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
        return heads

    def _mask(
        self, attn_mask: torch.Tensor | None, padding: torch.Tensor | None, queries: torch.Tensor
    ) -> torch.Tensor | None:
        """What is added to the products of queries and keys; None where nothing is hidden."""
        mask = None if attn_mask is None else _added(attn_mask, queries)
        if mask is not None and mask.ndim == 3:
            mask = mask.unflatten(0, (-1, self.num_heads))
        if padding is None:
            return mask
        hidden = _added(padding, queries)[:, None, None, :]
        return hidden if mask is None else mask + hidden


class OpenEncoderLayer(nn.TransformerEncoderLayer):
    """PyTorch's layer by its own modules, without the short cut that runs past them."""

    def forward(
        self,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """As `nn.TransformerEncoderLayer.forward`."""
        if self.norm_first:
            x = src + self._sa_block(self.norm1(src), src_mask, src_key_padding_mask, is_causal)
            y: torch.Tensor = x + self._ff_block(self.norm2(x))
            return y
        x = self.norm1(src + self._sa_block(src, src_mask, src_key_padding_mask, is_causal))
        z: torch.Tensor = self.norm2(x + self._ff_block(x))
        return z


class OpenEncoder(nn.TransformerEncoder):
    """PyTorch's stack of layers, one after the other."""

    def forward(
        self,
        src: torch.Tensor,
        mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool | None = None,
    ) -> torch.Tensor:
        """As `nn.TransformerEncoder.forward`."""
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
        return x if self.norm is None else self.norm(x)


class OpenDecoderLayer(nn.TransformerDecoderLayer):
    """PyTorch's layer, which torch.fx looks into as it is none of PyTorch's own."""


class OpenDecoder(nn.TransformerDecoder):
    """PyTorch's stack of layers, one after the other."""

    def forward(
        self,
        tgt: torch.Tensor,
        memory: torch.Tensor,
        tgt_mask: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        tgt_key_padding_mask: torch.Tensor | None = None,
        memory_key_padding_mask: torch.Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> torch.Tensor:
        """As `nn.TransformerDecoder.forward`."""
        x = tgt
        for layer in self.layers:
            x = layer(
                x, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
            )  # fmt: skip
        return x if self.norm is None else self.norm(x)


OPEN: dict[type[nn.Module], type[nn.Module]] = {
    nn.TransformerEncoderLayer: OpenEncoderLayer,
    nn.TransformerEncoder: OpenEncoder,
    nn.TransformerDecoderLayer: OpenDecoderLayer,
    nn.TransformerDecoder: OpenDecoder,
}


def with_projections(model: nn.Module) -> nn.Module:
    """The network with PyTorch's attention and transformer layers in the form above; itself where it has none.

    Attention of several widths, or with keys of its own beside the sequence's, stays as it is.
    """
    if type(model) is nn.MultiheadAttention:
        return ProjectedAttention(model) if _is_plain(model) else model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.MultiheadAttention and _is_plain(child):
                setattr(module, name, ProjectedAttention(child))
        if type(module) in OPEN and all(_fits(child) for child in module.children()):
            module.__class__ = OPEN[type(module)]
    return model


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    return attention._qkv_same_embed_dim and attention.bias_k is None and not attention.add_zero_attn


def _fits(child: nn.Module) -> bool:
    """Whether a transformer layer may call it as an attention whose short cut is closed."""
    return type(child) is not nn.MultiheadAttention


def _dense(weight: torch.Tensor | None, bias: torch.Tensor | None) -> nn.Linear:
    """A dense layer with this very weight, a parameter."""
    assert isinstance(weight, nn.Parameter)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias  # type: ignore[assignment]
    return layer


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask as numbers to add: minus infinity where a boolean one hides."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -torch.inf)
    return mask
