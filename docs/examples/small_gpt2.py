"""A small GPT-2 trained on English text for a minute, as a stand-in for a transformer of your own.

    python docs/examples/small_gpt2.py FOLDER TEXT

writes the network and its tokenizer to FOLDER, as `save_pretrained` does, and the text, one sentence a line, to TEXT:
the sentences of Python's own language reference.
"""

import argparse
import re
from pathlib import Path
from pydoc_data import topics

import torch
from torch.nn import functional as F

from scatterproof.victims.vision import allow_torchvision

allow_torchvision()  # beside a torch without CUDA; transformers imports it

import transformers  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402

VOCABULARY, WINDOW, STEPS, END = 500, 32, 200, "<end>"


def sentences() -> list[str]:
    """Some 1,500 of them."""
    text = re.sub(r"\s+", " ", " ".join(topics.topics.values()))
    parts = (part.strip() for part in re.split(r"(?<=[.!?])\s+", text))
    return list(dict.fromkeys(part for part in parts if 30 < len(part) < 150 and part.isascii()))


def train(model: torch.nn.Module, windows: torch.Tensor, steps: int) -> float:
    """Teach a causal language model the token that follows in windows int64 [N, T]; the last loss, nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for _ in range(steps):
        batch = windows[torch.randint(len(windows), (32,))]
        logits = model(input_ids=batch[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # so small a network only loses by more
    torch.manual_seed(0)
    lines = sentences()
    tokenizer = Tokenizer(models.BPE(unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unknown>", END]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token="<unknown>")
    stream = [each for ids in fast(lines).input_ids for each in (*ids, fast.eos_token_id)]
    windows = torch.tensor(stream).unfold(0, WINDOW + 1, WINDOW // 2)
    end = fast.eos_token_id
    sizes = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=end, eos_token_id=end))
    loss = train(model, windows, STEPS)
    model.save_pretrained(asked.folder)
    fast.save_pretrained(asked.folder)
    asked.text.write_text("\n".join(lines) + "\n")
    print(f"loss {loss:.2f} nats a token after {STEPS} steps; {asked.folder} and {asked.text} are written")


if __name__ == "__main__":
    main()
