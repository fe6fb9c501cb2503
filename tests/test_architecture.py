"""The layers of the package: imports point down, and only one folder knows array libraries.

The rules are read off the sources, without importing them.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

import trsvd

ROOT = Path(trsvd.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")
)

# Folders and files of the root, from the bottom up: a module imports from its own layer and from
# those before it.
LAYERS = (
    "_version",
    "_errors",
    "_validate",
    "_compiled",
    "_arrays",
    "operators",
    "_plan",
    "_krylov",
    "methods",
    "_solve",
    "polar",
    "_oracles",
    "balls",
    "lmo",
    "norms",
    "regularized",
    "testing",
    "optim",
    "optim.torch",
    "compat",
    "sklearn",
    "spectrum",
    "reports",
    "table",
    "cli",
)

# What a folder has as an attribute, from a layer above it: imported on first use by `__getattr__`,
# and for type checkers.
LAZY = {"optim.__init__": {"optim.torch.__init__"}}


# Libraries of arrays, and the ways to ask which one an array comes from.
LIBRARIES = {"torch", "cupy", "cupyx", "jax", "dask", "array_api_compat", "array_api_strict"}
ASKING = re.compile(r"\bis_(numpy|torch|cupy|jax|dask|array_api)\w*")
# Besides the folders where they may be named: what chooses a library by the name that a user typed.
CHOOSERS = {"table.__init__", "cli.table"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module))


@cache
def source(module: str) -> str:
    return (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")


def layer(module: str) -> str:
    """The longest entry of LAYERS that is the module or a folder around it."""
    name = module.removesuffix(".__init__")
    found = [entry for entry in LAYERS if name == entry or name.startswith(f"{entry}.")]
    assert found, f"{module} is in no layer of LAYERS"
    return max(found, key=len)


def may_name_libraries(module: str) -> bool:
    return layer(module) in {"_arrays", "optim.torch"} or module in CHOOSERS


def as_module(name: str) -> str | None:
    """``trsvd.x.y`` as it stands in MODULES; None if it is not a module."""
    parts = name.removeprefix("trsvd").removeprefix(".")
    for candidate in (parts, f"{parts}.__init__" if parts else "__init__"):
        if candidate in MODULES:
            return candidate
    return None


def imports_of(module: str) -> set[str]:
    """Modules of the package that ``module`` imports, those for types included."""
    return imports_in(tree(module), module)


def imports_in(code: ast.Module, module: str) -> set[str]:
    found = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; write `from trsvd...`"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if as_module(name) else str(node.module) for name in names]
        else:
            continue
        ours = [name for name in names if name == "trsvd" or name.startswith("trsvd.")]
        for name in ours:
            target = as_module(name)
            assert target, f"{module} imports {name}, which does not exist"
            found.add(target)
    return found


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_for_types(module: str) -> set[str]:
    """Modules that ``module`` imports for type checkers only."""
    running = ast.Module([node for node in tree(module).body if not is_for_types(node)], [])
    return imports_of(module) - imports_in(running, module)


def library_imports(module: str) -> set[str]:
    """Top-level names of all imports outside of the package, those for types included."""
    names = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(str(node.module))
    return {name.split(".")[0] for name in names}


def test_the_modules_are_found() -> None:
    found = {"__init__", "_arrays.arrays", "operators.__init__", "methods.trlan"}
    assert found <= set(MODULES)
    assert imports_of("_krylov.rayleigh_ritz") >= {"_arrays.arrays", "_krylov.basis"}


def test_every_layer_exists() -> None:
    assert {layer(module) for module in MODULES if module not in ROOTS} == set(LAYERS)


ROOTS = {"__init__", "__main__"}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in ROOTS])
def test_imports_point_down(module: str) -> None:
    place = LAYERS.index(layer(module))
    for other in imports_of(module) - (LAZY.get(module, set()) & imports_for_types(module)):
        if other == "__init__":
            # What a person runs may use what a person uses.
            assert layer(module) in {"reports", "table", "cli"}, f"{module} imports trsvd itself"
            continue
        assert LAYERS.index(layer(other)) <= place, f"{module} imports {other}, a layer above it"


def test_the_page_shows_the_layers_of_today() -> None:
    script = Path(__file__).parent.parent / "docs" / "layers.py"
    spec = importlib.util.spec_from_file_location("layers", script)
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    assert layers.is_current(), (
        "docs/explanation/architecture.md is stale; run `python docs/layers.py`"
    )


def test_pages_name_files_and_functions_that_exist() -> None:
    """Files of the package, and what stands in brackets after one, are in the sources."""
    folder = Path(__file__).parent.parent / "docs" / "explanation"
    pages = [folder / "architecture.md", folder / "where-to-change.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    folders = "|".join(sorted({layer.split(".")[0] for layer in LAYERS}, key=len, reverse=True))
    found = re.findall(rf"`((?:{folders})(?:/\w+)*\.py)`(?: \(((?:`[\w.]+`[, ]*)+)\))?", text)
    assert len(found) > 50
    for path, names in found:
        assert (ROOT / path).is_file(), f"docs/explanation names {path}, which does not exist"
        for name in re.findall(r"[\w.]+", names):
            last = name.split(".")[-1]
            assert re.search(rf"\b{last}\b", (ROOT / path).read_text(encoding="utf-8")), (
                f"docs/explanation names {name} in {path}, where it is not"
            )


def test_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in done:
            for other in imports_of(module) - {"__init__", module}:
                visit(other, (*above, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("folder", sorted({m.rpartition(".")[0] for m in MODULES} - {""}))
def test_folders_are_small(folder: str) -> None:
    """A folder is read at a glance: at most 11 files."""
    assert len([m for m in MODULES if m.rpartition(".")[0] == folder]) <= 11


@pytest.mark.parametrize(
    "module", [m for m in MODULES if re.search(r"(^|\.)_", m) and m != "__init__"]
)
def test_private_modules_export_nothing(module: str) -> None:
    if module.endswith("__init__") and not module.startswith("_"):
        return
    assert "__all__" not in source(module)


@pytest.mark.parametrize("module", MODULES)
def test_numba_is_known_in_one_folder(module: str) -> None:
    assert module.startswith("_compiled") or "numba" not in library_imports(module)


def test_the_package_only_names_what_is_public() -> None:
    """Imports, names, and what PEP 562 needs to import public folders on first use."""
    imports, names = (ast.Import, ast.ImportFrom), (ast.Assign, ast.Expr)
    for node in tree("__init__").body:
        if isinstance(node, ast.FunctionDef):
            assert node.name == "__dir__"
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "not TYPE_CHECKING":
            assert [each.name for each in node.body] == ["__getattr__"]
        elif is_for_types(node):
            assert all(isinstance(each, imports) for each in node.body)
        else:
            assert isinstance(node, (*imports, *names)), ast.unparse(node)


def test_submodules_on_first_use_are_known_to_type_checkers() -> None:
    blocks = [node for node in tree("__init__").body if is_for_types(node)]
    aliases = [alias for block in blocks for node in block.body for alias in node.names]
    assert {alias.asname for alias in aliases} == {alias.name for alias in aliases}
    assert {alias.name for alias in aliases} == trsvd._SUBMODULES


@pytest.mark.parametrize("module", MODULES)
def test_array_libraries_are_known_in_one_place(module: str) -> None:
    if module not in ROOTS and may_name_libraries(module):
        return
    assert not library_imports(module) & LIBRARIES
    code = [node for node in ast.walk(tree(module)) if isinstance(node, (ast.Name, ast.Attribute))]
    names = {node.id if isinstance(node, ast.Name) else node.attr for node in code}
    asked = {name for name in names if ASKING.fullmatch(name)}
    assert not asked, f"{module} asks {sorted(asked)}; let a function of _arrays/ do it"
    strings = {
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not strings & LIBRARIES, f"{module} names a library in a string"


def test_the_rule_sees_what_it_forbids() -> None:
    assert library_imports("_arrays.arrays") & LIBRARIES
    assert ASKING.search(source("_arrays.arrays"))


@pytest.mark.parametrize("module", MODULES)
def test_kernels_and_methods_do_not_know_where_arrays_live(module: str) -> None:
    if module in ROOTS or layer(module) not in {
        "operators",
        "_plan",
        "_krylov",
        "methods",
        "_solve",
    }:
        return
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"cpu", "cuda", "numpy", "is_cuda", "__array__"}, ast.unparse(
                node
            )


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("methods.")])
def test_methods_do_not_loop(module: str) -> None:
    assert not any(isinstance(node, ast.While) for node in ast.walk(tree(module)))


def test_one_module_drives() -> None:
    loops = {
        module
        for module in MODULES
        if module.startswith(("methods.", "_solve."))
        for node in ast.walk(tree(module))
        if isinstance(node, ast.While)
    }
    assert loops == {"_solve.driver"}


# ---- docstrings -------------------------------------------------------------------------


def public_definitions(module: str) -> list[tuple[str, ast.AST]]:
    """Classes and functions that can be reached by names without a leading underscore."""
    found = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != "_":
                found.append((prefix + node.name, node))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    visit(tree(module).body, "")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are(module: str) -> None:
    docstring = ast.get_docstring(tree(module))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?", ":"))


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[-1][0] != "_"])
def test_public_functions_are_documented(module: str) -> None:
    for name, node in public_definitions(module):
        docstring = ast.get_docstring(node)
        assert docstring, f"{module}.{name} has no docstring"
        assert docstring.splitlines()[0].rstrip().endswith((".", "?", ":")), (
            f"{module}.{name}: the docstring begins with one sentence"
        )


EXPORTED = [name for name in trsvd.__all__ if callable(getattr(trsvd, name))]


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_documents_its_parameters(name: str) -> None:
    thing = getattr(trsvd, name)
    docstring = thing.__doc__
    module = thing.__module__.removeprefix("trsvd.")
    node = dict(public_definitions(as_module(module) or module))[name]
    is_function = isinstance(node, ast.FunctionDef)
    if is_function:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = [argument.arg for argument in arguments]
        sections = ["Parameters", "Returns"] if names else ["Returns"]
    else:
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
        names = [
            str(item.target.id)
            for item in fields
            if isinstance(item.target, ast.Name)
            and item.target.id[0] != "_"
            and not ast.unparse(item.annotation).startswith("ClassVar")
        ]
        sections = []
    for section in sections:
        assert re.search(rf"^ *{section}\n *-{{{len(section)}}}$", docstring, re.M), section
    documented = set()
    for line in docstring.splitlines():
        head, colon, _ = line.strip().partition(" : ")
        if colon or re.fullmatch(r"[\w, *]+", line.strip()):
            documented |= {part.strip(" *") for part in head.split(",")}
    missing = set(names) - documented
    assert not missing, f"{name} does not document {sorted(missing)}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("methods.")])
def test_methods_say_what_they_cost_and_where_they_come_from(module: str) -> None:
    for name, node in public_definitions(module):
        decorated = isinstance(node, ast.ClassDef) and any(
            isinstance(item, ast.AnnAssign) and ast.unparse(item.target) == "name"
            for item in node.body
        )
        bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
        if not decorated or "Protocol" in bases:
            continue
        docstring = ast.get_docstring(node) or ""
        assert re.search(r"^Notes\n-----$", docstring, re.M), name
        assert "Memory:" in docstring, name
        assert re.search(r"^References\n----------$", docstring, re.M), name
        assert re.search(r"doi:10\.|arXiv:\d|ed\., section", docstring), name


KERNELS = ("basis", "batched", "golub_kahan", "gram_lanczos", "subspace_iteration")


@pytest.mark.parametrize("module", [f"_krylov.{name}" for name in KERNELS])
def test_kernels_open_with_their_invariant(module: str) -> None:
    assert (ast.get_docstring(tree(module)) or "").count("nvariant")
