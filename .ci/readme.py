"""Run the documents' own commands: every ```bash block of README.md and then of the others, in order, from the root.

    python .ci/readme.py ["make test" ...]

Commands given as arguments have been run already: they must stand in a document, and are not run again. What a block
that cannot run here looks like, tests/documents.py says. Each block is one shell session; the first command that fails
ends the check.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from documents import ROOT, DocumentError, command_blocks, commands, name, pages


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
    try:
        found = [block for page in pages() for block in command_blocks(page.read_text(encoding="utf-8"), name(page))]
    except DocumentError as error:
        sys.exit(str(error))
    count = 0
    for block in found:
        shown = commands(block)
        missing -= set(shown)
        if not block.runs:
            print(f"{block.where}: not run: {block.reason}", flush=True)
            continue
        wanted = [command for command in shown if command not in done]
        count += len(wanted)
        start = time.monotonic()
        session = ["bash", "-c", script(wanted, block.where)]
        result = subprocess.run(session, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        if result.returncode:
            sys.exit(f"{block.where}: a command failed with status {result.returncode}")
        print(f"{block.where}: {len(wanted)} commands, {time.monotonic() - start:.0f} s", flush=True)
    if missing:
        sys.exit(f"No document shows: {', '.join(sorted(missing))}")
    if not count:
        sys.exit("The documents show no command to run")


if __name__ == "__main__":
    main()
