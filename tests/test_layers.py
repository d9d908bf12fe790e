"""Imports point one way, as DESIGN's layout says, and asking for help costs no library."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import curate

ROOT = Path(__file__).parents[1]
PARTS = ("curate", "native", "train", "evaluate")
GENERIC = {"utils", "common", "helpers", "core", "base"}
TRAINING = {"torch", "transformers", "trl"}
DEAR = {*TRAINING, "numba", "ray", "polars", "pyarrow", "rich"}


@dataclass(frozen=True)
class Import:
    """One import of a module by a file; late if it stands in a function."""

    file: str
    module: str
    late: bool

    def __str__(self) -> str:
        return f"{self.file} imports {self.module}"

    def is_of(self, *packages: str) -> bool:
        """Whether it is one of these packages or inside of one."""
        return any(f"{self.module}.".startswith(f"{package}.") for package in packages)


def files_of(part: str, root: Path = ROOT) -> list[Path]:
    """The Python files of a part; what it links to is a part of its own."""
    walk = os.walk(root / part)  # does not follow links
    return sorted(
        Path(folder, name) for folder, _, names in walk for name in names if name.endswith(".py")
    )


def imports_of(part: str, root: Path = ROOT) -> list[Import]:
    """Everything that the files of a part import, `from a import b` as `a.b`."""
    return [found for file in files_of(part, root) for found in imports_in(file, root)]


def imports_in(file: Path, root: Path) -> Iterator[Import]:
    """What one file imports, in functions or at once, relative names resolved."""
    name = file.relative_to(root)
    dotted = name.with_suffix("").parts
    package = dotted[:-1] if dotted[0] == "curate" else ("curate", *dotted[:-1])
    tree = ast.parse(file.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            origin = [*above, *([node.module] if node.module else [])]
            modules = [".".join([*origin, alias.name]) for alias in node.names]
        else:
            continue
        yield from (Import(str(name), module, id(node) in late) for module in modules)


def test_imports_are_found_wherever_they_stand(tmp_path):
    file = tmp_path / "curate" / "commands" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import a.b, c\nfrom . import d\nfrom .. import e\nfrom ..f import g\n"
        "class K:\n    def run(self):\n        from h import i\n"
    )
    found = [(one.module, one.late) for one in imports_of("curate", tmp_path)]
    early = ["a.b", "c", "curate.commands.d", "curate.e", "curate.f.g"]
    assert found == [*((module, False) for module in early), ("h.i", True)]


def test_native_imports_numpy_and_numba_and_nothing_of_ours():
    allowed = ("numpy", "numba", "llvmlite", "curate.native", *sys.stdlib_module_names)
    assert files_of("native")
    assert [str(found) for found in imports_of("native") if not found.is_of(*allowed)] == []


def test_curate_imports_no_training_library():
    assert [str(found) for found in imports_of("curate") if found.is_of(*TRAINING)] == []


def test_curate_imports_train_and_evaluate_only_late_in_its_commands():
    found = [one for one in imports_of("curate") if one.is_of("curate.train", "curate.evaluate")]
    commands = os.path.join("curate", "commands", "")
    assert [str(one) for one in found if not (one.late and one.file.startswith(commands))] == []


@pytest.mark.parametrize(("part", "other"), [("train", "evaluate"), ("evaluate", "train")])
def test_train_and_evaluate_do_not_import_each_other(part, other):
    found = imports_of(part)
    assert [str(one) for one in found if one.is_of(f"curate.{other}", other)] == []


def test_parts_are_imported_by_their_names_within_curate():
    found = [one for part in PARTS for one in imports_of(part)]
    assert [str(one) for one in found if one.is_of("native", "train", "evaluate")] == []


def test_no_module_has_a_generic_name():
    modules = [file for part in PARTS for file in files_of(part)]
    named = [file for file in modules if GENERIC & {*file.relative_to(ROOT).with_suffix("").parts}]
    assert named == []


@pytest.mark.parametrize(
    "code",
    [
        "import curate",
        "import curate.__main__",
        "sys.argv = ['curate', '--help']; from curate.__main__ import main; main()",
        "sys.argv = ['curate', '--version']; from curate.__main__ import main; main()",
    ],
    ids=["import", "import of the command line", "help", "version"],
)
def test_nothing_dear_is_imported_before_it_is_needed(code):
    at_exit = f"atexit.register(lambda: print(json.dumps(sorted(set(sys.modules) & {DEAR}))))"
    command = [sys.executable, "-c", f"import atexit, json, sys\n{at_exit}\n{code}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_face_in_python_is_what_all_says():
    assert curate.__all__ == sorted(curate.__all__)
    assert {"scan", "select", "measure", "CurateError"} <= {*curate.__all__}
    assert all(callable(getattr(curate, name)) for name in curate.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = curate.nothing


def test_every_public_function_of_native_has_a_docstring():
    bare = [
        f"{file.name}: {node.name}"
        for file in files_of("native")
        for node in definitions_in(ast.parse(file.read_text()))
        if not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert bare == []


def definitions_in(
    outer: ast.Module | ast.ClassDef,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The classes and functions of a module and the methods of its classes, not what is inside."""
    for node in outer.body:
        if isinstance(node, ast.ClassDef):
            yield from definitions_in(node)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
