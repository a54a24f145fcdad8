"""Definitions and words of WordNet's nouns as pairs: a text, a tab and its word.

    python docs/results/wild/wordnet.py FOLDER PAIRS

reads FOLDER/data.noun (in /usr/share/wordnet where Debian has wordnet-base) and writes 1,000 pairs, drawn by a seed:
the definition of a word's first sense, without its examples, and the word. Each word stands once.
"""

import argparse
import random
from pathlib import Path

PAIRS, LEAST, MOST = 1000, 20, 150  # characters of a definition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("pairs", type=Path)
    asked = parser.parse_args()
    by_word: dict[str, str] = {}
    for line in (asked.folder / "data.noun").read_text().splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields, _, gloss = line.partition(" | ")
        word = fields.split()[4]
        definition = gloss.partition(";")[0].strip()
        plain = word.isalpha() and word.islower() and definition.isascii()
        if plain and LEAST <= len(definition) <= MOST:
            by_word.setdefault(word, definition)
    drawn = random.Random(0).sample(sorted(by_word), PAIRS)
    asked.pairs.write_text("".join(f"{by_word[word]}\t{word}\n" for word in drawn))


if __name__ == "__main__":
    main()
