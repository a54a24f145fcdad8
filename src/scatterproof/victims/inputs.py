"""The kind of inputs, which a tensor's type determines, and the token ids that a network reads."""

import torch
from torch import nn

from scatterproof.config.dataset import InputKind
from scatterproof.running.seeds import torch_generator

NOUNS: dict[InputKind, str] = {"images": "image", "features": "input", "tokens": "input"}
_KINDS: dict[torch.dtype, InputKind] = {torch.uint8: "images", torch.float32: "features", torch.int64: "tokens"}


def input_kind(inputs: torch.Tensor) -> InputKind:
    """uint8 [N,C,H,W] are images, float32 [N, ...] features, int64 [N,T] token ids; so are none of them, [0, ...]."""
    return _KINDS[inputs.dtype]


def vocabulary(model: nn.Module, length: int) -> int | None:
    """How many token ids an eval-mode network reads: of the smallest embedding that is called on the ids themselves;
    None where there is no such embedding, or the network fails on ids [2, length]."""
    for most in (3, 2):  # two ids alone look like a mask
        ids = torch.randint(0, most, (2, length), generator=torch_generator("token ids", length))
        ids[0, 0] = most - 1
        sizes = _readers(model, ids.to(next(model.parameters()).device))
        if sizes:
            return min(sizes)
    return None


@torch.inference_mode()
def _readers(model: nn.Module, ids: torch.Tensor) -> list[int]:
    """Sizes of the embeddings that read these ids; none where the network fails."""
    sizes = []

    def see(module: nn.Module, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        read = (*positional, *named.values())[0]
        if any(read.shape == own.shape and torch.equal(read.to(own.dtype), own) for own in (ids, ids.T, ids.flatten())):
            sizes.append(len(module.weight))  # type: ignore[arg-type]

    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    handles = [module.register_forward_pre_hook(see, with_kwargs=True) for module in embeddings]
    try:
        model(ids)
    except Exception:  # a user's model may fail in any way it likes; where it is tried, that is said
        return []
    finally:
        for handle in handles:
            handle.remove()
    return sizes
