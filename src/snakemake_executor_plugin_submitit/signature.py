"""What a job's result depends on, as digests. A job of an earlier controller is taken up only where it is the same.

Of Snakemake's own rerun triggers it holds code, params, the set of inputs and the software environment (the fifth,
the inputs' times, is in `begun`). It also holds what these do not see, and what a body can read all the same: threads
and resources, the content of scripts and wrappers, and values of config and of the Snakefile.
"""

import dis
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.shared_files import digest_of

VERSION = 2  # of what a signature holds; one of another version is of no use
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
CONFIG_KEY = re.compile(r"snakemake[.@]config\s*(?:\[\s*|\.get\(\s*|\$\s*|\[\[\s*)[\"']?(\w+)[\"']?")
CONFIG = re.compile(r"snakemake[.@_]config\b")
WHOLE_OBJECT = re.compile(r"\bsnakemake\b(?!\s*[.@\[_])")
PLAIN = (str, int, float, bool, bytes, complex, type(None), list, tuple, dict, set, frozenset, Path)


class Signatures:
    """The signatures of one controller's jobs. Files and values that many jobs share are looked at once."""

    def __init__(self, workflow: Any) -> None:
        self.workflow = workflow
        self.digests: dict[str, str] = {}  # of files, by path
        self.read_by: dict[Any, Any] = {}  # what a rule's body reads of the Snakefile, by rule

    def __call__(self, job: JobExecutorInterface) -> str:
        """What a job's result depends on, as JSON: for it, or each job of a group, a digest of each part."""
        parts = {name_of(one): self._parts(one) for one in members(job)}
        digests = {name: {part: digest(value)[:16] for part, value in of.items()} for name, of in parts.items()}
        return json.dumps({"version": VERSION, "jobs": digests})

    def _parts(self, one: Any) -> dict[str, Any]:
        resources = {name: repr(value) for name, value in one.resources.items() if name != "tmpdir" and name[0] != "_"}
        return {
            "code": self._code(one),
            "params": self.stable(list(one.params)),
            "inputs": self.stable(self.workflow.persistence._input(one)),
            "software": self.workflow.persistence._software_stack_hash(one),
            "threads": one.threads,
            "resources": sorted(resources.items()),
        }

    def _code(self, one: Any) -> Any:
        """What a job runs, and what that reads beside the job's own files and params."""
        rule = one.rule
        if rule.shellcmd is not None:
            return self.stable(_formatted(one))
        if rule.template_engine is not None:
            return [rule.template_engine, self._config([])]
        source = source_of(one)
        if source is None:
            return [rule.run_func_src, self._reads(rule)]
        name, path = source
        try:
            text = Path(path).read_text(errors="replace") if path else ""
        except OSError:
            text = ""
        return [self.stable(name), self.digest_of(path) if path else "", self._config(config_keys(text))]

    def sources(self, job: JobExecutorInterface) -> dict[str, str]:
        """Digests of the files beside its inputs that a job reads when it begins: Snakefiles, config, its script."""
        paths = {str(Path(str(one)).absolute()) for one in self.workflow.configfiles}
        paths |= {str(one.get_path_or_uri(secret_free=True)) for one in self.workflow.included}
        paths |= {source[1] for source in map(source_of, members(job)) if source}
        digests = {path: self.digest_of(path) for path in sorted(paths)}
        return {path: value for path, value in digests.items() if value}

    def _config(self, keys: list[str] | None) -> Any:
        """Values of config by key; the whole of it for an empty list, nothing for None."""
        if keys is None:
            return None
        config = self.workflow.config
        return self.stable({key: config.get(key) for key in keys} if keys else config)

    def _reads(self, rule: Any) -> Any:
        """The values that the body of a `run` rule reads of its Snakefile."""
        if rule not in self.read_by:
            body = rule.run_func
            values = sorted(self._values(body.__code__, body.__globals__, set())) if body else []
            self.read_by[rule] = [_body(body.__code__), *values] if body else []
        return self.read_by[rule]

    def _values(self, code: CodeType, names: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
        """Values that some code reads of its file, and those that functions of the same file read for it."""
        for nested in (one for one in code.co_consts if isinstance(one, CodeType)):
            yield from self._values(nested, names, seen)
        if "config" in code.co_names:
            yield f"config={digest(self._config(_config_keys(code)))}"
        for name in sorted({*code.co_names} & {*names} - seen - {"config"}):
            seen.add(name)
            value = names[name]
            if isinstance(value, PLAIN):
                yield f"{name}={self.stable(value)}"
            elif isinstance(value, FunctionType) and value.__globals__ is names:
                yield f"{name}={_body(value.__code__)}"
                yield from self._values(value.__code__, names, seen)

    def digest_of(self, path: str) -> str:
        """A file's content as a digest; empty where it cannot be read."""
        if path not in self.digests:
            self.digests[path] = digest_of(Path(path))
        return self.digests[path]

    def stable(self, value: Any) -> Any:
        """A value as text that is the same in every process.

        Sets have no order of their own, and copies of source files have another path in each run.
        """
        if isinstance(value, set | frozenset):
            return sorted(str(self.stable(one)) for one in value)
        if isinstance(value, Mapping):
            return sorted([str(self.stable(key)), self.stable(one)] for key, one in value.items())
        if isinstance(value, list | tuple):
            return [self.stable(one) for one in value]
        if hasattr(value, "tobytes") and hasattr(value, "dtype"):  # repr leaves out the middle of an array
            return [str(value.dtype), list(value.shape), hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()]
        if not isinstance(value, PLAIN):
            exact = self.workflow.persistence._serialize_param(value)  # of pandas' tables, the values
            value = exact if isinstance(exact, str) else ADDRESS.sub("", repr(value))
        return self._without_copies(str(value)) if isinstance(value, str | Path) else repr(value)

    def _without_copies(self, text: str) -> str:
        """A text in which each copy of a source file is named by its content."""
        folder = str(self.workflow.sourcecache.runtime_cache_path)
        if folder not in text:
            return text
        pattern = re.escape(folder) + r"[^\s'\"`;|&<>()$]*"
        return re.sub(pattern, lambda match: f"<source {self.digest_of(match[0])}>", text)


def difference(before: str, now: str) -> list[str]:
    """The parts in which jobs are others than before; jobs that are no longer asked for do not count."""
    if before == now:
        return []
    try:
        old, new = json.loads(before), json.loads(now)
    except ValueError:
        old = {}
    if old.get("version") != VERSION:
        return ["version"]
    changes: dict[str, None] = {}
    for name, parts in new["jobs"].items():
        known = old["jobs"].get(name, {})
        changes |= dict.fromkeys(part for part in parts if parts[part] != known.get(part))
    return list(changes)


def members(job: JobExecutorInterface) -> list[Any]:
    """A job alone; the jobs of a group, in an order that is the same in every run."""
    if not job.is_group():
        return [job]
    return sorted(job.jobs, key=name_of)


def name_of(one: Any) -> str:
    """A job's rule and wildcards."""
    return f"{one.rule.name}:{wildcards(one.wildcards_dict)}"


def wildcards(values: Mapping[str, Any]) -> str:
    """Values by commas; those that have commas themselves are told apart by a digest."""
    texts = [str(value) for value in values.values()]
    joined = ",".join(texts)
    return f"{joined}#{digest(texts)[:8]}" if any("," in text for text in texts) else joined


def inputs_of(job: JobExecutorInterface) -> list[str]:
    """A job's inputs that count for its age: none that is `ancient`, or made by another job of its group.

    A copy of a source file is none either: it is another file in each run, and the signature holds its content.
    """
    made = {str(path) for one in members(job) for path in one.output}
    inputs = {
        str(path)
        for one in members(job)
        for path in one.input
        if not (path.is_ancient or "sourcecache_entry" in path.flags)
    }
    return sorted(str(Path(path).absolute()) for path in inputs - made)


def kept_outputs(job: JobExecutorInterface) -> list[str]:
    """What a job leaves behind: all outputs but temporary ones that other jobs of its group have used up."""
    used = {str(path) for one in members(job) for path in one.input}
    outputs = [path for one in members(job) for path in one.output]
    return [str(path) for path in outputs if not (path.is_temp and str(path) in used)]


def source_of(one: Any) -> tuple[str, str] | None:
    """A job's script, notebook, CWL or wrapper as its rule names it, and its path here (empty if it is elsewhere)."""
    rule = one.rule
    if rule.wrapper is not None:
        return str(rule.wrapper), _wrapper(one)
    named = rule.script or rule.notebook or rule.cwl
    if named is None:
        return None
    try:
        return str(named), str(one._path_to_source_file(named).get_path_or_uri(secret_free=True))
    except (OSError, AttributeError):
        return str(named), ""


def _wrapper(one: Any) -> str:
    from snakemake import wrapper
    from snakemake.sourcecache import SourceFile

    workflow = one.rule.workflow
    source = wrapper.get_script(one.rule.wrapper, workflow.sourcecache, workflow.workflow_settings.wrapper_prefix)
    return str(workflow.sourcecache.get_path(source)) if isinstance(source, SourceFile) else ""


def config_keys(text: str) -> list[str] | None:
    """The keys of config that a script reads; an empty list where it may read any, None where it reads none."""
    if WHOLE_OBJECT.search(_without_strings_and_comments(text)):
        return []
    mentions, keys = CONFIG.findall(text), CONFIG_KEY.findall(text)
    if not mentions:
        return None
    return sorted(set(keys)) if len(keys) == len(mentions) else []


def _without_strings_and_comments(text: str) -> str:
    return re.sub(r"#[^\n]*|\"\"\".*?\"\"\"|\"[^\"\n]*\"|'[^'\n]*'", "", text, flags=re.DOTALL)


def _formatted(one: Any) -> str:
    """A shell command with its values, but without the job's number, which differs between runs."""
    try:
        return str(one.format_wildcards(one.rule.shellcmd, jobid=""))
    except Exception:  # a value that is not known yet, or an error that Snakemake will name when it runs the job
        return str(one.rule.shellcmd)


def _config_keys(code: CodeType) -> list[str]:
    """The keys of config that some code reads; an empty list where it may read any."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "PUSH_NULL", "RESUME")]
    keys = []
    for step, key, use in zip(steps, steps[1:], steps[2:], strict=False):
        if step.argval == "config" and step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if key.opname != "LOAD_CONST" or use.opname not in ("BINARY_SUBSCR", "BINARY_OP"):
                return []
            keys.append(str(key.argval))
    return sorted(set(keys))


def _body(code: CodeType) -> str:
    """A function's body, whatever lines it stands on."""
    constants = [_body(one) if isinstance(one, CodeType) else _constant(one) for one in code.co_consts]
    return digest([code.co_code.hex(), constants, list(code.co_names)])


def _constant(value: Any) -> str:
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def digest(content: Any) -> str:
    """Plain values as a digest."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
