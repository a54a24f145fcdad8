"""The commands that stand in the project's documents: fenced blocks, code spans, and pages of published results.

A block of commands opens with ```bash, and `.ci/readme.py` runs it. One that cannot run there opens with
```bash no-run, and an HTML comment right before it says why. Needs the standard library alone.
"""

import html
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
SPAN = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\s*\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--((?:(?!-->).)*)-->\s*\Z", re.DOTALL)
SHELLS = re.compile(r"(bash|sh|shell|shell-session|console|zsh)\b")
# The programs whose calls are checked wherever they stand, and those that make a fenced block one of commands
CHECKED = {"snakemake", "scatterproof", "make", "python", "bash", "sqlite3", "cp"}
PROGRAMS = CHECKED | {"pip", "git", "cd", "pytest", "uv", "conda", "docker", "sbatch", "squeue", "sacct", "scontrol"}
SOURCES = ["src/**/*.py", "src/**/*.j2", "benchmarks/*.py", "workflow/**/*", "rules/*", "envs/*", ".ci/*"]
SOURCES += ["config/*.yaml", "profiles/*/*", "slurm/*", "docs/examples/*", "Snakefile", "Makefile", "pyproject.toml"]


class DocumentError(ValueError):
    """A document that breaks the convention; the message names page and line."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where it opens, `reason` the HTML comment right before it."""

    page: str
    line: int
    info: str
    content: str
    reason: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.info == "bash"


def pages() -> list[Path]:
    """Every document, the README first: what others show may need what its commands leave."""
    others = {path for folder in ("docs", "config", "src") for path in (ROOT / folder).rglob("*.md")}
    return [ROOT / "README.md", *sorted((others | set(ROOT.glob("*.md"))) - {ROOT / "README.md"})]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, page: str) -> list[Block]:
    """Every fenced block. Raises: DocumentError."""
    found, lines, number = [], text.splitlines(), 0
    while number < len(lines):
        if match := FENCE.match(lines[number]):
            start, indent = number, len(match["indent"])
            number += 1
            while number < len(lines) and lines[number].strip() != match["fence"]:
                number += 1
            if number == len(lines):
                raise DocumentError(f"{page}:{start + 1}: block is never closed")
            content = "\n".join(line[indent:] for line in lines[start + 1 : number])
            comment = COMMENT.search("\n".join(lines[:start]))
            reason = " ".join(comment[1].split()) if comment else ""
            found.append(Block(page, start + 1, match["info"].strip(), content, reason))
        number += 1
    return found


def command_blocks(text: str, page: str) -> list[Block]:
    """The blocks of commands. Raises: DocumentError where one is not marked as such, or is not run without a reason."""
    found = []
    for block in blocks(text, page):
        shell = SHELLS.match(block.info)
        if shell and block.info not in ("bash", "bash no-run"):
            raise DocumentError(f"{block.where}: commands go in ```bash or ```bash no-run blocks, not ```{block.info}")
        if not shell:
            shown = [line for line in block.content.splitlines() if program(line.removeprefix("$ ")) in PROGRAMS]
            if shown:
                raise DocumentError(f"{block.where}: '{shown[0]}' is a command, and goes in a ```bash block")
            continue
        if not block.runs and not block.reason:
            raise DocumentError(f"{block.where}: a no-run block needs an HTML comment right before it that says why")
        commands(block)
        found.append(block)
    return found


def commands(block: Block) -> list[str]:
    """A block's commands; one may span lines (a trailing backslash, a loop, a here-document). Raises: DocumentError."""
    found, pending = [], ""
    for line in block.content.splitlines():
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending += line + "\n"
        check = subprocess.run(["bash", "-n"], input=pending, text=True, capture_output=True, check=False)
        if check.returncode == 0 and not check.stderr and not line.endswith("\\"):
            found.append(pending.strip())
            pending = ""
    if pending:
        raise DocumentError(f"{block.where}: bash cannot read '{pending.splitlines()[0]}'")
    return found


def program(command: str) -> str:
    """The program that a line calls: `make` of `A=1 make demo`, `snakemake` of `.venv/bin/snakemake --cores 2`."""
    called = [word for word in command.split() if not re.match(r"\w+=", word)]
    return called[0].removeprefix(".venv/bin/") if called else ""


def calls(command: str) -> list[list[str]]:
    """The simple commands of a line that are checked, word by word, without assignments before them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("();|&"):
            found.append([])
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [[program(words[0]), *words[1:]] for words in found if len(words) > 1 and program(words[0]) in CHECKED]


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Line and content of every code span that is a command: a program that is checked, and something behind it."""
    for match in SPAN.finditer(text):
        content = re.sub(r"\s*\n[ \t]*(#[ \t])?", " ", match[2]).strip()
        if len(match[1]) < 3 and program(content) in CHECKED and len(content.split()) > 1:
            yield text.count("\n", 0, match.start()) + 1, content


def prose(text: str) -> str:
    """A page with its fenced blocks emptied; lines keep their numbers."""
    lines = text.splitlines()
    for block in blocks(text, ""):
        size = block.content.count("\n") + 1 if block.content else 0
        lines[block.line - 1 : block.line + size + 1] = [""] * (size + 2)
    return "\n".join(lines)


def shown(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Where a file shows commands, and which: a block's together, a code span's alone. Raises: DocumentError."""
    text, page = path.read_text(encoding="utf-8"), name(path)
    if path.suffix == ".html":
        yield from ((page, [html.unescape(found)]) for found in re.findall(r"<td>(snakemake [^<]*)</td>", text))
        return
    if path.suffix == ".md":
        yield from ((block.where, commands(block)) for block in command_blocks(text, page))
        text = prose(text)
        if bare := re.search(r"\bsnakemake\s+--?\w+", SPAN.sub("", text)):
            raise DocumentError(f"{page}: '{bare[0]}' is a command, and goes between backticks")
    yield from ((f"{page}:{line}", [command]) for line, command in spans(text))


def files() -> list[Path]:
    """Every file that may show a command: the documents, published pages, and comments of the sources."""
    sources = {path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts and path.suffix != ".svg"}
    return [*pages(), *sorted((ROOT / "docs").rglob("*.html")), *sorted(sources)]
