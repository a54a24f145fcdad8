"""What makes a job another job: each edit changes the signatures of the jobs that it concerns, and of no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dags import signatures
from snakemake_executor_plugin_submitit.signature import difference

ROOT = Path(__file__).parent
SNAKEFILE = """
from pathlib import Path
configfile: "c.yaml"
WORD = "global0"
LOOKED_UP = config["looked_up"]
def helper():
    return "helper0"
def letters():
    return {"a", "b", "c"}
def by_input(wildcards, input):
    return Path(input[0]).read_text()
rule all:
    input: expand("{kind}.out", kind=KINDS)
rule shell_text:
    output: "shell_text.out"
    shell: "echo shell0 > {output}"
rule shell_config:
    output: "shell_config.out"
    shell: "echo {config[shell]} > {output}"
rule shell_global:
    output: "shell_global.out"
    shell: "echo {LOOKED_UP} {resources.tmpdir} {jobid} > {output}"
rule run_text:
    output: "run_text.out"
    run:
        text = '''
        run0
        '''
        Path(output[0]).write_text(text)
rule run_global:
    output: "run_global.out"
    run:
        Path(output[0]).write_text(WORD)
rule run_helper:
    output: "run_helper.out"
    run:
        Path(output[0]).write_text([helper() for _ in range(1)][0] + str(letters()))
rule run_config:
    output: "run_config.out"
    run:
        Path(output[0]).write_text(config["run"])
rule run_all_config:
    output: "run_all_config.out"
    run:
        Path(output[0]).write_text(str(config))
rule script_text:
    output: "script_text.out"
    params: config="this is no config"
    script: "s.py"
rule script_config:
    output: "script_config.out"
    script: "t.py"
rule params:
    output: "params.out"
    params: one="params0", letters=letters()
    shell: "echo {params.one} > {output}"
rule params_input:
    input: "data.txt"
    output: "params_input.out"
    params: by_input
    shell: "echo {params[0]} > {output}"
rule inputs:
    input: ["in0", "in1"][:1]
    output: "inputs.out"
    shell: "cat {input} > {output}"
rule threads:
    output: "threads.out"
    threads: 1
    shell: "echo > {output}"
rule memory:
    output: "memory.out"
    resources: mem_mb=1000
    shell: "echo > {output}"
rule source_param:
    output: "source_param.out"
    params: helper=workflow.source_path("helper.sh")
    shell: "bash {params.helper} > {output}"
rule source_text:
    output: "source_text.out"
    params: f"bash {workflow.source_path('helper.sh')} --x=1"
    shell: "{params} > {output}"
rule source_input:
    input: workflow.source_path("helper.sh")
    output: "source_input.out"
    shell: "bash {input} > {output}"
rule wrapped:
    output: "wrapped.out"
    wrapper: "file:wrap"
rule module:
    output: "module.out"
    envmodules: "gcc/0"
    shell: "echo > {output}"
rule template:
    input: "data.txt"
    output: "template.out"
    template_engine: "jinja2"
"""
KINDS = [line.split()[1].rstrip(":") for line in SNAKEFILE.splitlines() if line.startswith("rule ")][1:]
CONFIG = "{shell: 0, run: 0, script: 0, looked_up: 0, unused: 0}\n"
FILES = {
    "c.yaml": CONFIG,
    "s.py": "config = snakemake.params.config\nopen(snakemake.output[0], 'w').write('script0')\n",
    "t.py": "open(snakemake.output[0], 'w').write(str(snakemake.config['script']))\n",
    "helper.sh": "echo source0\n",
    "wrap/wrapper.py": "open(snakemake.output[0], 'w').write('wrapper0')\n",
    "data.txt": "data0",
    "in0": "",
    "in1": "",
}
WHOLE_CONFIG = {"run_all_config", "template"}

# file, what is replaced in it, by what, and the rules whose jobs are others then
EDITS = [
    ("Snakefile", "echo shell0", "echo shell1", {"shell_text"}),
    ("Snakefile", "        run0", "        run1", {"run_text"}),
    ("Snakefile", "global0", "global1", {"run_global"}),
    ("Snakefile", "helper0", "helper1", {"run_helper"}),
    ("Snakefile", "params0", "params1", {"params"}),
    ("Snakefile", '"in1"][:1]', '"in1"][:2]', {"inputs"}),
    ("Snakefile", "threads: 1", "threads: 2", {"threads"}),
    ("Snakefile", "mem_mb=1000", "mem_mb=2000", {"memory"}),
    ("Snakefile", "gcc/0", "gcc/1", {"module"}),
    ("Snakefile", "--x=1", "--x=2", {"source_text"}),
    ("Snakefile", "rule all:", "rule unrelated:\n    output: 'u'\n    shell: 'true'\nrule all:", set()),
    ("c.yaml", "shell: 0", "shell: 1", {"shell_config"} | WHOLE_CONFIG),
    ("c.yaml", "run: 0", "run: 1", {"run_config"} | WHOLE_CONFIG),
    ("c.yaml", "script: 0", "script: 1", {"script_config"} | WHOLE_CONFIG),
    ("c.yaml", "looked_up: 0", "looked_up: 1", {"shell_global"} | WHOLE_CONFIG),
    ("c.yaml", "unused: 0", "unused: 1", WHOLE_CONFIG),
    ("s.py", "script0", "script1", {"script_text"}),
    ("helper.sh", "source0", "source1", {"source_param", "source_text", "source_input"}),
    ("wrap/wrapper.py", "wrapper0", "wrapper1", {"wrapped"}),
    ("data.txt", "data0", "data1", {"params_input"}),
]


def write(folder: Path, edits: tuple[int, ...] = ()) -> None:
    files = {"Snakefile": SNAKEFILE.replace("KINDS", repr(KINDS))} | FILES
    for number in edits:
        name, old, new, _ = EDITS[number]
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.sets(st.integers(0, len(EDITS) - 1)))
def test_exactly_the_edited_jobs_are_other_jobs(tmp_path: Path, edits: set[int]) -> None:
    write(tmp_path)
    before = signatures(tmp_path)
    assert set(before) == set(KINDS)
    write(tmp_path, tuple(sorted(edits)))
    after = signatures(tmp_path)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == set().union(*(EDITS[one][3] for one in edits))


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_each_edit_alone(tmp_path: Path, number: int) -> None:
    write(tmp_path)
    before = signatures(tmp_path)
    write(tmp_path, (number,))
    after = signatures(tmp_path)
    assert {kind for kind in KINDS if before[kind] != after[kind]} == EDITS[number][3]


def test_they_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Sets have another order under another hash seed, and copies of sources another path."""
    write(tmp_path)
    program = "import sys, json; from pathlib import Path; from dags import signatures;"
    program += "print(json.dumps(signatures(Path(sys.argv[1]))))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            env=os.environ | {"PYTHONHASHSEED": seed, "TMPDIR": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]


def test_what_has_changed_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    before = signatures(tmp_path)
    write(tmp_path, (0, 6, 7))
    after = signatures(tmp_path)
    assert difference(before["shell_text"], after["shell_text"]) == ["code"]
    assert difference(before["threads"], after["threads"]) == ["threads"]
    assert difference(before["memory"], after["memory"]) == ["resources"]
    assert difference(before["module"], after["module"]) == []
    assert difference("an earlier version's", after["module"]) == ["version"]
