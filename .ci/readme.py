"""Run README.md's own commands: every ```bash block, in order, from the root of the clone.

    python .ci/readme.py ["make test" ...]

Commands given as arguments have been run already: they must stand in the README, and are not run again. A block that
cannot run here (it needs a cluster, or the clone itself) opens with ```bash no-run, and an HTML comment right before it
says why. Each block is one shell session; the first command that fails ends the check.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(?P<indent>[ ]*)```(?P<info>.*)$")


def blocks(text: str) -> list[tuple[int, str, str, str]]:
    """Every fenced block: line number, info string, content, the text line before it."""
    found = []
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        if match := FENCE.match(lines[number]):
            start, indent = number, len(match["indent"])
            number += 1
            while number < len(lines) and lines[number].strip() != "```":
                number += 1
            if number == len(lines):
                sys.exit(f"README.md:{start + 1}: block is never closed")
            content = "\n".join(line[indent:] for line in lines[start + 1 : number])
            before = next((line for line in reversed(lines[:start]) if line.strip()), "")
            found.append((start + 1, match["info"].strip(), content, before.strip()))
        number += 1
    return found


def commands(block: str) -> list[str]:
    """The commands of a block; one may span lines (a trailing backslash, a loop, a here-document)."""
    found, pending = [], ""
    for line in block.splitlines():
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        pending += line + "\n"
        check = subprocess.run(["bash", "-n"], input=pending, text=True, capture_output=True)
        if check.returncode == 0 and not check.stderr and not line.endswith("\\"):
            found.append(pending.strip())
            pending = ""
    return found + ([pending.strip()] if pending else [])


def script(wanted: list[str], where: str) -> str:
    """One session that says each command, runs it, and ends at the first that fails."""
    lines = ["set -o pipefail"]
    for command in wanted:
        quoted = "'" + command.replace("'", "'\\''") + "'"
        lines += [f"printf '$ %s\\n' {quoted}", command]
        lines.append(f"__status=$?; [ $__status -eq 0 ] || {{ echo '{where}: status' $__status >&2; exit $__status; }}")
    return "\n".join(lines) + "\n"


def main() -> None:
    done = set(sys.argv[1:])
    missing = set(done)
    environment = os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    count = 0
    for line, info, content, before in blocks((ROOT / "README.md").read_text(encoding="utf-8")):
        where = f"README.md:{line}"
        if re.match(r"(sh|shell|console|zsh)\b", info) or (
            info.startswith("bash") and info not in ("bash", "bash no-run")
        ):
            sys.exit(f"{where}: commands go in ```bash or ```bash no-run blocks, not ```{info}")
        if not info.startswith("bash"):
            continue
        found = commands(content)
        missing -= set(found)
        if info == "bash no-run":
            if not before.endswith("-->"):
                sys.exit(f"{where}: a no-run block needs an HTML comment right before it that says why")
            print(f"{where}: not run: {before}", flush=True)
            continue
        wanted = [command for command in found if command not in done]
        count += len(wanted)
        start = time.monotonic()
        result = subprocess.run(
            ["bash", "-c", script(wanted, where)], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL
        )
        if result.returncode:
            sys.exit(f"{where}: a command failed with status {result.returncode}")
        print(f"{where}: {len(wanted)} commands, {time.monotonic() - start:.0f} s", flush=True)
    if missing:
        sys.exit(f"README.md does not show: {', '.join(sorted(missing))}")
    if not count:
        sys.exit("README.md shows no command to run")


if __name__ == "__main__":
    main()
