"""torchvision, importable also where its compiled operators do not fit the installed torch.

torchvision on the package index is built for CUDA. Beside a CPU-only torch its C++ operators cannot load, and its
import fails on two of them, though models, datasets and transforms need none. Declaring the two is enough; calling
one still fails, as it should.
"""

import torch

_OPERATORS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for _name, _schema in _OPERATORS.items():
        torch.library.define(_name, _schema)
    import torchvision

__all__ = ["torchvision"]
