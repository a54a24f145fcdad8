"""Text as token ids: lines of a file, through the tokenizer of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scatterproof.config.victim import HF
from scatterproof.victims.download import DatasetError
from scatterproof.victims.hf.dataset_folder import folder_texts, is_dataset_folder
from scatterproof.victims.hf.folder import HfFolder
from scatterproof.victims.vision import allow_torchvision

LEAST_LINES = 20


@dataclass(frozen=True)
class Lines:
    """Texts of a file, one a line, and what stands behind a tab in each, or None where no line has a tab.

    for_test: so many of the texts, the last ones, are for the test; None where nothing says so.
    """

    texts: list[str]
    targets: list[str] | None
    for_test: int | None = None


def read_lines(path: Path, key: str = "dataset.path") -> Lines:
    """Of a file, or of a folder of the library datasets.

    Raises: DatasetError where the file is missing, no UTF-8 text, too short, or only some lines have a tab.
    """
    where = f"{key} '{path}'"
    if is_dataset_folder(path):
        of_folder = Lines(*folder_texts(path))
        _check_count(where, of_folder.texts)
        return of_folder
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DatasetError(f"{where}: is no UTF-8 text, expected one text a line") from None
    except OSError as error:
        raise DatasetError(f"{where}: {error.strerror or error}") from None
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    _check_count(where, lines)
    parts = [line.split("\t") for line in lines]
    widths = {len(each) for each in parts}
    if widths == {1}:
        return Lines(lines, None)
    odd = next((number for number, each in enumerate(parts) if len(each) != 2 or not all(each)), None)
    if odd is not None:
        raise DatasetError(
            f"{where}: line {odd + 1} has {len(parts[odd])} parts, expected TEXT alone, or TEXT, a tab and a target, "
            "in every line"
        )
    return Lines([text.strip() for text, _ in parts], [target.strip() for _, target in parts])


def _check_count(where: str, texts: Sequence[str]) -> None:
    if len(texts) < LEAST_LINES:
        raise DatasetError(f"{where}: has {len(texts)} lines of text, expected at least {LEAST_LINES}")


def read_index(path: Path, key: str = "victim.model_args.index") -> list[str]:
    """Texts of a file, one a line, each once. Raises: DatasetError."""
    lines = read_lines(path, key)
    if lines.targets is not None:
        raise DatasetError(f"{key} '{path}': has tabs, expected one text a line")
    if len(set(lines.texts)) < len(lines.texts):
        twice = next(text for text in lines.texts if lines.texts.count(text) > 1)
        raise DatasetError(f"{key} '{path}': has the text {twice!r:.60} twice, expected each once")
    return lines.texts


class Tokenizer:
    """Of a folder that save_pretrained wrote. Raises: ModelError, DatasetError."""

    def __init__(self, folder: str) -> None:
        name = folder.removeprefix(HF)
        HfFolder.read(f"{HF}{name}", weights=False).check_tokenizer()
        allow_torchvision()
        try:
            import transformers

            transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=True)
        except ImportError:
            raise DatasetError(
                f"dataset.tokenizer '{name}': needs the library transformers: pip install 'scatterproof[hf]'"
            ) from None
        except Exception as error:  # a folder may be wrong in any way it likes
            line = " ".join(str(error).split())
            raise DatasetError(f"dataset.tokenizer '{name}': transformers can't load it: {line:.300}") from None
        self.padding = self._tokenizer.pad_token_id

    def sentences(self, texts: Sequence[str], longest: int) -> torch.Tensor:
        """Token ids int64 [N, T] of each text, cut at `longest`, filled up with padding to the longest of them."""
        made = self._tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        width = max(map(len, made))
        if self.padding is None and len({len(each) for each in made}) > 1:
            raise DatasetError("dataset.tokenizer: has no padding token, which texts of several lengths need")
        ids = np.full((len(made), width), self.padding or 0, dtype=np.int64)
        for row, each in enumerate(made):
            ids[row, : len(each)] = each
        return torch.from_numpy(ids)

    def windows(self, texts: Sequence[str], length: int, stride: int) -> torch.Tensor:
        """The texts one after the other, in windows int64 [N, length] that begin every `stride` tokens.

        Raises: DatasetError where they are shorter than a window.
        """
        end = self._tokenizer.eos_token_id
        ids: list[int] = []
        for each in self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]:
            ids += [*each, *([] if end is None else [end])]
        if len(ids) < length:
            raise DatasetError(f"dataset.path: has {len(ids)} tokens, expected at least {length}")
        return torch.tensor(ids, dtype=torch.int64).unfold(0, length, stride).clone()
