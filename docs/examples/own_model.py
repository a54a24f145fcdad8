"""A network of your own for Scatterproof: a small MLP-Mixer. Copy this file and put in your own.

Tolstikhin et al. 2021, https://arxiv.org/abs/2105.01601, with convolutions for patches, which learn sooner.
"""

import torch
from torch import nn


class MLP(nn.Sequential):
    """The feed-forward block: two dense layers over the last dimension."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features))


class Block(nn.Module):
    """Mixes the tokens of each channel, then the channels of each token; [N, tokens, channels] both ways."""

    def __init__(self, tokens: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm_channels = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mix_tokens, self.mix_channels = MLP(tokens, 2 * tokens), MLP(channels, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix_tokens(self.norm_tokens(x).transpose(1, 2)).transpose(1, 2)
        return x + self.mix_channels(self.norm_channels(x))


class Mixer(nn.Module):
    """float [N, 3, size, size] -> logits [N, classes]; a token for each 4 x 4 pixels."""

    def __init__(self, classes: int, size: int, channels: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels // 2, 3, 2, 1), nn.BatchNorm2d(channels // 2), nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 3, 2, 1),
        )  # fmt: skip
        self.blocks = nn.Sequential(*(Block((size // 4) ** 2, channels, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


def mixer(classes: int = 100, size: int = 32, channels: int = 96, hidden: int = 384, depth: int = 3) -> nn.Module:
    """What `victim.model: own_model:mixer` calls, with `victim.model_args`."""
    return Mixer(classes, size, channels, hidden, depth)
