"""A victim that nobody here trained: the weights of a folder of transformers, and a sentence encoder's index."""

from pathlib import Path

import torch

from scatterproof.config.victim import VictimConfig
from scatterproof.victims.checkpoints import ModelError
from scatterproof.victims.hf.text import Tokenizer, read_index
from scatterproof.victims.hf.text_network import SentenceEncoder, TextNetwork, hf_network

BATCH = 64  # texts at once


def read_folder(config: VictimConfig, classes: int) -> TextNetwork:
    """The network of `hf:FOLDER` with the folder's weights, in eval mode.

    A sentence encoder makes its index of the texts of `model_args.index`. Raises: ModelError, DatasetError.
    """
    model = hf_network(config, classes, weights=True)
    if isinstance(model, SentenceEncoder):
        index = config.model_args.get("index")
        if not isinstance(index, str):
            raise ModelError(
                f"victim.model '{config.model}' is an encoder, which answers no classes: expected "
                "victim.model_args.index, a file of texts, one a line, among which the nearest is looked for"
            )
        texts = read_index(Path(index))
        if len(texts) != classes:
            raise ModelError(
                f"victim.model_args.index '{index}' has {len(texts)} texts, expected {classes}: one for each class"
            )
        make_index(model, Tokenizer(config.model).sentences(texts, model.longest))
    return model


@torch.inference_mode()
def make_index(model: SentenceEncoder, ids: torch.Tensor) -> None:
    """The vectors of these texts as the index of an encoder."""
    model.index = torch.cat([model.embed(part) for part in ids.split(BATCH)]).clone()
