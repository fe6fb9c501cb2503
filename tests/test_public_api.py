"""What can be imported is what is said to be public, and the other way round."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

import trsvd

ROOT = Path(trsvd.__file__).parent
PYPROJECT = ROOT.parent / "pyproject.toml"

SUBMODULES = sorted(
    info.name
    for info in pkgutil.walk_packages([str(ROOT)], "trsvd.")
    if not info.name.endswith("__main__")
)


def load(name: str) -> types.ModuleType:
    """A module; skipped where it needs an optional library that is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"trsvd", "numpy", "scipy", "rich", "safetensors"}:
            raise
        pytest.skip(f"{name} needs {error.name}")


def run(code: str) -> list[str]:
    """Words that a fresh interpreter prints: in this one, tests have imported submodules."""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return out.stdout.split()


def test_dir_is_what_is_public() -> None:
    names = run("import trsvd; print(*dir(trsvd))")
    public = {name for name in names if name[0] != "_"}
    assert public == set(trsvd.__all__) | trsvd._SUBMODULES
    assert all(name.startswith("__") and name.endswith("__") for name in set(names) - public)
    assert {"__all__", "__doc__", "__version__"} <= set(names)
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", sorted(trsvd._SUBMODULES | {"operators"}))
def test_submodules_are_attributes(name: str) -> None:
    assert run(f"import trsvd; print(trsvd.{name}.__name__)") == [f"trsvd.{name}"]
    assert is_public(f"trsvd.{name}")


@pytest.mark.parametrize("name", ["optim", "compat", "testing"])
def test_submodules_are_imported_on_first_use(name: str) -> None:
    code = f"import sys, trsvd; print('trsvd.{name}' in sys.modules)"
    assert run(code) == ["False"]


def test_optimizers_of_torch_are_imported_on_first_use() -> None:
    pytest.importorskip("torch")
    code = "import sys, trsvd; trsvd.optim; print('torch' in sys.modules, trsvd.optim.torch.Muon)"
    assert run(code)[0] == "False"
    assert "trsvd.optim.torch" in run(code)[-1]


def test_without_torch_the_error_says_so() -> None:
    code = (
        "import sys, trsvd; sys.modules['torch'] = None\n"
        "try: trsvd.optim.torch\n"
        "except ModuleNotFoundError as error: print(error.name)"
    )
    assert run(code) == ["torch"]


@pytest.mark.parametrize("module", [trsvd, trsvd.optim], ids=["trsvd", "optim"])
def test_unknown_attributes(module: types.ModuleType) -> None:
    assert not hasattr(module, "no_such_name")
    with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'svd'"):
        module.svd  # noqa: B018


def test_all_is_sorted_and_without_doubles() -> None:
    assert sorted(set(trsvd.__all__)) == sorted(trsvd.__all__)
    for name in trsvd.__all__:
        assert hasattr(trsvd, name)


def test_star_import_gives_all() -> None:
    space: dict[str, object] = {}
    exec("from trsvd import *", space)
    assert set(space) - {"__builtins__"} == set(trsvd.__all__)


def is_public(name: str) -> bool:
    """Of a folder the names in its ``__init__`` are public, of the files in the root their own."""
    _, *parts = name.split(".")
    if any(part[0] == "_" for part in parts):
        return False
    return len(parts) == 1 or (ROOT.joinpath(*parts) / "__init__.py").is_file()


PUBLIC = [name for name in SUBMODULES if is_public(name)]


@pytest.mark.parametrize("name", PUBLIC)
def test_all_of_public_modules(name: str) -> None:
    module = load(name)
    exported = getattr(module, "__all__", None)
    assert isinstance(exported, list), f"{name} has no __all__"
    assert len(set(exported)) == len(exported)
    for member in exported:
        assert hasattr(module, member), f"{name}.__all__ names {member}, which does not exist"
        assert member[0] != "_"


@pytest.mark.parametrize("name", PUBLIC)
def test_nothing_public_is_left_out_of_all(name: str) -> None:
    module = load(name)
    own = {
        member
        for member, thing in vars(module).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and thing.__module__ == name
        and member[0] != "_"
    }
    assert own <= set(module.__all__), sorted(own - set(module.__all__))


@pytest.mark.parametrize("name", trsvd.__all__)
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(trsvd, name)
    assert (thing.__doc__ or "").strip()
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert thing.__module__.startswith("trsvd.")


def test_functions_have_annotated_signatures() -> None:
    for name in trsvd.__all__:
        thing = getattr(trsvd, name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            assert signature.return_annotation is not signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not parameter.empty, f"{name}: {parameter}"


def test_svds_has_the_signature_that_users_rely_on() -> None:
    parameters = inspect.signature(trsvd.svds).parameters
    assert list(parameters)[:2] == ["A", "k"]
    keyword_only = {
        name for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY
    }
    wanted = {"method", "tol", "start", "state", "rng", "max_matvecs", "callback", "on_failure"}
    assert wanted <= keyword_only
    assert keyword_only == set(parameters) - {"A", "k"}


@pytest.mark.parametrize(
    "name", ["BlockKrylov", "Direct", "PowerIteration", "RandomizedSVD", "ThickRestartLanczos"]
)
def test_methods_are_frozen_and_take_keywords_only(name: str) -> None:
    method = getattr(trsvd, name)
    one = method()
    assert one == method()
    assert hash(one) == hash(method())
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(TypeError):
        method(1)
    with pytest.raises(TypeError, match="no_such_option"):
        method(no_such_option=1)
    with pytest.raises(AttributeError):
        one.name = "other"


def test_exceptions_are_what_one_catches() -> None:
    assert issubclass(trsvd.NotConverged, RuntimeError)
    assert issubclass(trsvd.AdjointError, ValueError)
    assert issubclass(trsvd.ConvergenceWarning, UserWarning)
    error = trsvd.NotConverged("message", None)
    assert str(pickle.loads(pickle.dumps(error))) == "message"
    for status in trsvd.Status:
        assert status.converged is (status.name == "CONVERGED")
        assert len(status.value) > 20


def test_the_version_is_the_metadata() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", trsvd.__version__)
    if PYPROJECT.is_file():
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        assert project["dynamic"] == ["version"], "trsvd/_version.py is the one place"
        assert "version" not in project
        citation = (PYPROJECT.parent / "CITATION.cff").read_text(encoding="utf-8")
        assert f"\nversion: {trsvd.__version__}\n" in citation
        changelog = (PYPROJECT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
        section = "Unreleased" if ".dev" in trsvd.__version__ else trsvd.__version__
        assert f"\n## [{section}]" in changelog
    try:
        installed = importlib.metadata.distribution("trsvd")
    except importlib.metadata.PackageNotFoundError:
        return
    # An editable installation has the version of the day when it was made.
    if Path(str(installed.locate_file("trsvd"))) == ROOT:
        assert installed.version == trsvd.__version__


def test_the_conda_recipe_is_that_of_the_package() -> None:
    path = PYPROJECT.parent / ".github" / "conda-forge" / "recipe.yaml"
    if not path.is_file():
        pytest.skip("not in a distribution")
    recipe = path.read_text(encoding="utf-8")
    assert f"\n  version: {trsvd.__version__}\n" in recipe
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    run = recipe.split("  run:\n")[1].split("\n\n")[0]
    wanted = [line.removeprefix("    - ").replace(" ", "") for line in run.splitlines()]
    assert wanted == ["python>=${{python_min}}", *project["dependencies"]]
    assert f'python_min: "{project["requires-python"].removeprefix(">=")}"' in recipe


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").is_file()


def test_import_is_light() -> None:
    """Importing the package imports no optional library, no slow one, and starts no device."""
    optional = ["torch", "cupy", "jax", "numba", "matplotlib", "sklearn", "rich", "safetensors"]
    slow = ["scipy.optimize", "scipy.sparse.linalg", "scipy.spatial", "scipy.stats"]
    names = optional + slow
    # (scipy.sparse of SciPy 1.15 imports scipy.sparse.linalg itself.)
    code = (
        f"before = set(sys.modules); import trsvd; new = set(sys.modules) - before; names = {names}"
    )
    said = run(f"import sys, scipy.sparse; {code}; print(*[x for x in names if x in new])")
    assert said == []


def test_one_name_for_the_random_numbers_in_each_interface():
    """rng= in the array interface, seed= in optimizers; random_state= in drop-ins only."""
    names = {"rng", "seed", "random_state"}

    def found(module):
        functions = [getattr(module, name) for name in module.__all__]
        functions += [function.lmo for function in functions if hasattr(function, "lmo")]
        for function in functions:
            if inspect.isfunction(function) or inspect.isclass(function):
                with contextlib.suppress(ValueError, TypeError):
                    yield from names & set(inspect.signature(function).parameters)

    assert set(found(trsvd)) == {"rng"}
    assert set(found(trsvd.optim)) == {"seed"}


# Protocols, base classes and one table of parameters, which have no use of their own to show.
WITHOUT_EXAMPLE = {
    "trsvd.operators.MatrixLike",
    "trsvd.operators.MatrixOperator",
}


@pytest.mark.parametrize("module", ["trsvd", "trsvd.operators", "trsvd.balls", "trsvd.optim"])
def test_public_names_have_an_example_and_point_to_related_ones(module):
    """The examples are run as doctests."""
    names = importlib.import_module(module)
    for name in names.__all__:
        value = getattr(names, name)
        if not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        text = inspect.getdoc(value) or ""
        assert "\nSee Also\n---" in text or f"{module}.{name}" in WITHOUT_EXAMPLE, name
        assert ">>>" in text or f"{module}.{name}" in WITHOUT_EXAMPLE, name
