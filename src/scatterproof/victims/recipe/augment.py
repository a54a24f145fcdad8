"""Augmentation of a batch on its device, each image with its own draw."""

import torch
from torch.nn import functional as F

from scatterproof.victims.inputs import input_kind


def augment(images: torch.Tensor, kind: str) -> torch.Tensor:
    """`none`, `crop` (after reflecting an eighth of the side at each border) or `crop_flip`; uint8 [N,C,H,W].

    Features and token ids stay as they are.
    """
    if kind == "none" or input_kind(images) != "images":
        return images
    images = _random_crop(images, max(1, min(images.shape[2:]) // 8))
    if kind == "crop_flip":
        mirrored = torch.rand(len(images)).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def _random_crop(images: torch.Tensor, margin: int) -> torch.Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images.float(), (margin,) * 4, mode="reflect").to(images.dtype)
    # Drawn on the CPU: one generator, whatever the device.
    top, left = torch.randint(0, 2 * margin + 1, (2, count)).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    picked = torch.arange(count, device=images.device)[:, None, None]
    return padded[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
