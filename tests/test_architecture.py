"""The floors of the package: imports point down, and only one module knows array libraries.

The rules are read off the sources, without importing them.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import trsvd

ROOT = Path(trsvd.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py")
)

FLOORS = [
    # 0: what everything stands on
    {
        "_kinds",
        "_admit",
        "_arrays",
        "_errors",
        "_factorizations",
        "_compiled",
        "_numba_kernels",
        "_numba_shared",
        "_lapack",
        "_memory",
        "_reductions",
        "_threads",
        "_threaded_lanczos",
    },
    # 1: matrices as operators
    {"_operator", "operators", "_probe", "_metered", "_in_memory"},
    # 2: kernels
    {
        "_columns",
        "_orthonormalize",
        "_golub_kahan",
        "_lanczos",
        "_ritz",
        "_squares",
        "_stacked",
        "_subspace",
    },
    # 3: truncated SVD
    {
        "result",
        "stopping",
        "_impression",
        "methods.__init__",
        "methods._protocol",
        "methods._subspace_run",
        "methods.direct",
        "methods.power",
        "methods.randomized",
        "methods.trlan",
        "_validate",
        "_select",
        "_problem",
        "_completeness",
        "_second_look",
        "_spectrum_check",
        "_drive",
        "_batch",
        "_svds",
    },
    # 4: norms, balls, oracles
    {
        "_singular_values",
        "_leading",
        "_tracking",
        "_stack",
        "_probable",
        "_lmo_result",
        "_polynomials",
        "_polar_express",
        "_polar_bounds",
        "_polar_methods",
        "_polar_lmo",
        "_spectral_function",
        "_sum_gauge",
        "_ball",
        "_entrywise_balls",
        "_spectral_balls",
        "balls",
        "norms",
        "_one_call",
        "_fanions",
        "lmo",
        "regularized",
        "polar",
    },
    # 5: thin layers that embed the oracles
    {
        "optim._layout",
        "optim.schedules",
        "optim._oracles",
        "optim.diagnostics",
        "optim._chain",
        "optim._links",
        "optim._dion",
        "optim._normuon",
        "optim._families",
        "optim._general",
        "optim.rules",
        "optim.__init__",
        "optim._torch_state",
        "optim._torch_shards",
        "optim._torch_base",
        "optim._torch_families",
        "optim._torch_relatives",
        "optim._torch_models",
        "optim._torch_split",
        "optim.torch",
    },
    # 6: what a person runs
    {
        "testing",
        "_matrices",
        "_matrix_market",
        "_files",
        "_report",
        "_display",
        "_shapes",
        "_pictures",
        "_arguments",
        "_balls_command",
        "table",
        "_race_statistics",
        "_race_solvers",
        "_race_subjects",
        "_race_cells",
        "_race_judges",
        "_race_clock",
        "_race_peers",
        "_race_own",
        "_race_outcome",
        "_race_trials",
        "_race_worker",
        "_race_store",
        "_race_summary",
        "_race_display",
        "_race_command",
        "race",
        "_compat_arguments",
        "_compat_smallest",
        "_compat_svds",
        "_compat_randomized",
        "_compat_sklearn",
        "_hard_matrices",
        "_hard_cases",
        "_verdict",
        "_contestants",
        "reliability",
        "_reliability_command",
        "compat",
        "cli",
        "__main__",
    },
]

# Which neighbours on its own floor a module may import.
NEIGHBOURS = {
    "_admit": {"_arrays", "_kinds"},
    "_arrays": {"_factorizations", "_lapack", "_kinds", "_memory"},
    "_factorizations": {"_lapack", "_kinds", "_reductions"},
    "_reductions": {"_kinds"},
    "_compiled": {"_numba_kernels", "_numba_shared"},
    "_numba_shared": {"_numba_kernels"},
    "_lapack": {"_compiled", "_threads"},
    "_threaded_lanczos": {"_compiled", "_threads"},
    "_operator": {"_probe"},
    "operators": {"_operator"},
    "_metered": {"_operator"},
    "_in_memory": {"_metered", "_operator"},
    "_ritz": {"_orthonormalize"},
    "_golub_kahan": {"_columns", "_orthonormalize", "_ritz"},
    "_lanczos": {"_columns", "_golub_kahan", "_orthonormalize", "_ritz"},
    "_stacked": {"_ritz", "_squares"},
    "_subspace": {"_columns", "_orthonormalize", "_ritz"},
    "methods.__init__": {
        "methods._protocol",
        "methods.direct",
        "methods.power",
        "methods.randomized",
        "methods.trlan",
    },
    "methods._subspace_run": {"methods._protocol"},
    "methods.direct": {"methods._protocol"},
    "methods.power": {"methods._protocol", "methods._subspace_run"},
    "methods.randomized": {"methods._protocol", "methods._subspace_run"},
    "methods.trlan": {"_impression", "methods._protocol"},
    "_validate": {"methods.__init__"},
    "_select": {"_validate", "methods.__init__"},
    "_problem": {"_select", "_validate", "methods.__init__", "result"},
    "_completeness": {"methods.__init__", "result", "stopping"},
    "_spectrum_check": {"methods.__init__", "result", "stopping"},
    "_drive": {
        "_completeness",
        "_second_look",
        "_spectrum_check",
        "_problem",
        "_select",
        "_validate",
        "methods.__init__",
        "result",
        "stopping",
    },
    "_batch": {"_drive", "_problem", "_select", "_validate", "methods.__init__", "result"},
    "_svds": {
        "_batch",
        "_drive",
        "_problem",
        "_select",
        "_validate",
        "methods.__init__",
        "result",
        "stopping",
    },
    "_ball": {"_lmo_result", "_polar_methods", "_singular_values", "_sum_gauge"},
    "_leading": {"_probable", "_tracking"},
    "_stack": {"_leading", "_tracking"},
    "_entrywise_balls": {"_ball", "_lmo_result", "_polar_methods", "_spectral_function"},
    "polar": {"_polynomials"},
    "_polar_express": {"_polynomials"},
    "_polar_bounds": {"_polynomials"},
    "_polar_methods": {"_polar_bounds", "_polar_express", "_polynomials", "polar"},
    "_polar_lmo": {
        "_ball",
        "_leading",
        "_lmo_result",
        "_polar_bounds",
        "_polar_methods",
        "_polynomials",
        "_spectral_function",
    },
    "_spectral_function": {"_leading", "_lmo_result"},
    "_spectral_balls": {
        "_ball",
        "_leading",
        "_lmo_result",
        "_polar_lmo",
        "_polar_methods",
        "_singular_values",
        "_spectral_function",
        "_stack",
    },
    "balls": {"_ball", "_entrywise_balls", "_spectral_balls"},
    "norms": {"balls"},
    "_one_call": {"_lmo_result", "balls"},
    "_fanions": {"_one_call", "balls"},
    "lmo": {"_fanions", "_one_call", "_polar_methods", "balls"},
    "regularized": {"_lmo_result", "balls"},
    "optim._oracles": {"optim.schedules"},
    "optim.diagnostics": {"optim._oracles"},
    "optim._links": {
        "optim._chain",
        "optim._layout",
        "optim._oracles",
        "optim.diagnostics",
        "optim.schedules",
    },
    "optim._dion": {"optim._layout", "optim._links", "optim.schedules"},
    "optim._normuon": {"optim._layout"},
    "optim._general": {
        "optim._chain",
        "optim._links",
        "optim._oracles",
        "optim.diagnostics",
    },
    "optim.rules": {
        "optim._chain",
        "optim._dion",
        "optim._families",
        "optim._general",
        "optim._links",
        "optim._normuon",
        "optim._oracles",
        "optim.diagnostics",
    },
    "optim._families": {"optim._oracles"},
    "optim.__init__": {
        "optim._chain",
        "optim._dion",
        "optim._families",
        "optim._general",
        "optim._layout",
        "optim._links",
        "optim._normuon",
        "optim._oracles",
        "optim.diagnostics",
        "optim.rules",
        "optim.schedules",
    },
    "optim._torch_state": {"optim.schedules"},
    "optim._torch_base": {
        "optim._layout",
        "optim._links",
        "optim._oracles",
        "optim._torch_shards",
        "optim._torch_split",
        "optim._torch_state",
        "optim.diagnostics",
    },
    "optim._torch_families": {"optim._families", "optim._oracles", "optim._torch_base"},
    "optim._torch_relatives": {
        "optim._dion",
        "optim._layout",
        "optim._normuon",
        "optim._oracles",
        "optim._torch_base",
        "optim._torch_families",
        "optim._torch_shards",
        "optim.schedules",
    },
    "optim._torch_models": {"optim._torch_base", "optim._torch_shards"},
    "optim.torch": {
        "optim._torch_base",
        "optim._torch_families",
        "optim._torch_models",
        "optim._torch_split",
        "optim._torch_relatives",
    },
    "table": {"_matrices", "_report", "testing"},
    "_race_subjects": {"_matrices", "testing"},
    "_race_cells": {"_race_subjects"},
    "_race_judges": {"_race_cells", "_race_subjects", "testing"},
    "_race_clock": {"_race_subjects"},
    "_race_peers": {"_race_cells", "_race_judges", "_race_solvers", "_race_subjects"},
    "_race_own": {"_race_cells", "_race_judges", "_race_peers", "_race_subjects"},
    "_race_outcome": {"_race_peers"},
    "_race_trials": {
        "_race_clock",
        "_race_judges",
        "_race_outcome",
        "_race_own",
        "_race_peers",
        "_race_statistics",
    },
    "_race_worker": {
        "_race_cells",
        "_race_clock",
        "_race_judges",
        "_race_own",
        "_race_peers",
        "_race_subjects",
        "_race_trials",
    },
    "_race_store": {"_report"},
    "_race_summary": {"_race_statistics"},
    "_race_display": {"_race_summary", "_report"},
    "race": {
        "_race_cells",
        "_race_store",
        "_race_subjects",
        "_race_summary",
        "_race_trials",
        "_race_worker",
    },
    "_race_command": {"_arguments", "_race_display", "_report", "race"},
    "_compat_smallest": {"_compat_arguments"},
    "_compat_svds": {"_compat_arguments", "_compat_smallest"},
    "_compat_randomized": {"_compat_arguments"},
    "_compat_sklearn": {"_compat_arguments", "_compat_randomized", "_compat_svds"},
    "compat": {"_compat_randomized", "_compat_sklearn", "_compat_svds"},
    "_files": {"_matrix_market"},
    "_hard_cases": {"_hard_matrices"},
    "_verdict": {"_hard_cases"},
    "_contestants": {"_hard_cases", "_race_solvers", "_verdict"},
    "reliability": {"_contestants", "_hard_cases", "_report", "_verdict"},
    "_reliability_command": {
        "_arguments",
        "_contestants",
        "_hard_cases",
        "_race_display",
        "_verdict",
        "reliability",
    },
    "_display": {"table"},
    "_pictures": {"_report", "_shapes"},
    "_balls_command": {"_arguments", "_pictures", "_report", "_shapes"},
    "cli": {
        "_arguments",
        "_balls_command",
        "_display",
        "_files",
        "_matrices",
        "_race_command",
        "_reliability_command",
        "_report",
        "table",
        "testing",
    },
    "__main__": {"cli"},
}

# Libraries of arrays, and the ways to ask which one an array comes from.
LIBRARIES = {"torch", "cupy", "cupyx", "jax", "dask", "array_api_compat", "array_api_strict"}
ASKING = re.compile(r"\bis_(numpy|torch|cupy|jax|dask|array_api)\w*")
# Floor 5 embeds the oracles into a library's own optimizers; floor 6 may start and time them.
LIBRARY_MODULES = {
    "_admit",
    "_arrays",
    "optim._torch_state",
    "optim._torch_shards",
    "optim._torch_base",
    "optim._torch_families",
    "optim._torch_relatives",
    "optim._torch_models",
    "optim._torch_split",
    "table",
    "cli",
    "reliability",
    "_contestants",
    "_race_cells",
    "_race_peers",
    "_race_solvers",
    "_race_store",
}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module))


@cache
def source(module: str) -> str:
    return (ROOT / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")


def floor(module: str) -> int:
    found = [level for level, members in enumerate(FLOORS) if module in members]
    assert len(found) == 1, f"{module} is on {len(found)} floors of FLOORS"
    return found[0]


def runtime_nodes(module: str) -> list[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING:``."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree(module)]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))
    return found


def as_module(name: str) -> str | None:
    """``trsvd.x.y`` as it stands in MODULES; None if it is no module."""
    parts = name.removeprefix("trsvd").removeprefix(".")
    for candidate in (parts, f"{parts}.__init__" if parts else "__init__"):
        if candidate in MODULES:
            return candidate
    return None


def imports_of(module: str) -> set[str]:
    """Modules of the package that ``module`` imports when it runs."""
    found = set()
    for node in runtime_nodes(module):
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
    assert {"__init__", "_arrays", "operators", "methods.__init__", "methods.trlan"} <= set(MODULES)
    assert imports_of("_ritz") >= {"_arrays", "_orthonormalize"}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "__init__"])
def test_imports_point_down(module: str) -> None:
    level = floor(module)
    for other in imports_of(module):
        if other == "__init__":
            # What a person runs may use what a person uses.
            assert level == 6, f"{module} imports the package itself; name the module"
            continue
        if other in NEIGHBOURS.get(module, ()):
            assert floor(other) == level, f"{other} is no neighbour of {module}"
            continue
        assert floor(other) < level, (
            f"{module} (floor {level}) imports {other} (floor {floor(other)}): only lower floors, "
            "and the neighbours that NEIGHBOURS lists"
        )


def test_neighbours_import_each_other_one_way() -> None:
    seen: dict[str, int] = {}

    def depth(module: str, above: tuple[str, ...]) -> int:
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in seen:
            below = NEIGHBOURS.get(module, set())
            seen[module] = 1 + max((depth(other, (*above, module)) for other in below), default=0)
        return seen[module]

    for module in NEIGHBOURS:
        depth(module, ())


def test_every_module_of_the_lower_floors_exists() -> None:
    # Floors 4 to 6 list modules that are still to be built.
    assert set().union(*FLOORS[:4]) <= set(MODULES)


def test_the_package_only_names_what_is_public() -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    assert all(isinstance(node, allowed) for node in tree("__init__").body)


@pytest.mark.parametrize("module", MODULES)
def test_array_libraries_are_known_in_one_place(module: str) -> None:
    if module in LIBRARY_MODULES:
        return
    assert not library_imports(module) & LIBRARIES
    code = [node for node in ast.walk(tree(module)) if isinstance(node, (ast.Name, ast.Attribute))]
    names = {node.id if isinstance(node, ast.Name) else node.attr for node in code}
    asked = {name for name in names if ASKING.fullmatch(name)}
    assert not asked, f"{module} asks {sorted(asked)}; let a function of _arrays.py do it"
    strings = {
        node.value
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not strings & LIBRARIES, f"{module} names a library in a string"


def test_the_rule_sees_what_it_forbids() -> None:
    assert library_imports("_arrays") & LIBRARIES
    assert ASKING.search(source("_arrays"))


@pytest.mark.parametrize("module", MODULES)
def test_kernels_and_methods_do_not_know_where_arrays_live(module: str) -> None:
    if not 1 <= (floor(module) if module != "__init__" else 6) <= 3:
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
        if module != "__init__" and floor(module) == 3
        for node in ast.walk(tree(module))
        if isinstance(node, ast.While)
    }
    assert loops == {"_drive"}


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


@pytest.mark.parametrize("module", sorted(FLOORS[2] - {"_columns", "_ritz"}))
def test_kernels_open_with_their_invariant(module: str) -> None:
    assert (ast.get_docstring(tree(module)) or "").count("nvariant")
