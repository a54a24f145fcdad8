"""VGG16 with a width multiplier; at width 1 it is torchvision's, name by name and number by number.

Written out rather than taken from torchvision, whose import costs each of a sweep's jobs seconds; a test holds the two
together. Source: Simonyan & Zisserman 2014, configuration D, https://arxiv.org/abs/1409.1556.
"""

import torch
from torch import nn

_PLAN: list[int | str] = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
_COPY_FREE_POOLINGS = 2


class VGG16(nn.Module):
    """float [N, 3, size, size] -> logits [N, classes].

    width multiplies every channel count; blocks scaled alike make the same grid at every width. copy_free leaves out
    the last three poolings, so that 28 pixels reach the adaptive pooling as 7 x 7 and nothing is copied.
    """

    def __init__(self, classes: int, width: float, batch_norm: bool, dropout: float, copy_free: bool) -> None:
        super().__init__()
        self.features = _features(width, batch_norm, _COPY_FREE_POOLINGS if copy_free else 5)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        hidden = _scaled(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(_scaled(512, width) * 49, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        _initialise(self, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.flatten(self.avgpool(self.features(images)), 1)
        logits: torch.Tensor = self.classifier(features)
        return logits


def _features(width: float, batch_norm: bool, poolings: int) -> nn.Sequential:
    """The convolutions; a pooling left out is an identity, so that parameter names stay torchvision's."""
    layers: list[nn.Module] = []
    channels, pooled = 3, 0
    for item in _PLAN:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2) if pooled < poolings else nn.Identity())
            pooled += 1
            continue
        outputs = _scaled(item, width)
        layers.append(nn.Conv2d(channels, outputs, kernel_size=3, padding=1))
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        channels = outputs
    return nn.Sequential(*layers)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _initialise(model: nn.Module, width: float) -> None:
    """torchvision's own initialisation; narrow dense layers get the spread that keeps the size of their signal."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01 / width**0.5)
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            nn.init.zeros_(module.bias)
