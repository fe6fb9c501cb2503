"""Draw the layers of trsvd, from their imports, into docs/explanation/architecture.md.

Run ``python docs/layers.py`` after a change of imports, of the list LAYERS in
tests/test_architecture.py, or of the first docstring line of a layer. Nothing is imported: the
sources are parsed. With ``--check`` the page is not written, and the exit code is 1 if it is stale.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trsvd"
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
BEGIN = "<!-- Layers: written by docs/layers.py -->\n"
END = "<!-- End of the layers -->\n"


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def layers() -> tuple[str, ...]:
    """Return the list LAYERS of the architecture test, bottom first."""
    for node in parsed(ROOT / "tests" / "test_architecture.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            return ast.literal_eval(node.value)
    raise ValueError("tests/test_architecture.py has no list LAYERS")


def layer_of(name: str, known: tuple[str, ...]) -> str | None:
    """Return the longest layer name that is ``name`` or a folder around it."""
    found = [layer for layer in known if name == layer or name.startswith(f"{layer}.")]
    return max(found, key=len, default=None)


def imported_names(path: Path) -> set[str]:
    """Return the dotted names that a file imports from trsvd, without the leading ``trsvd.``."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("trsvd.") for name in names if name.startswith("trsvd.")}


def imports(known: tuple[str, ...]) -> dict[str, set[str]]:
    """Return, for each layer, the other layers that its files import."""
    found: dict[str, set[str]] = {layer: set() for layer in known}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        here = layer_of(module.removesuffix(".__init__"), known)
        if here is not None:
            found[here] |= {layer_of(name, known) for name in imported_names(path)} - {here, None}
    return found


def description(layer: str) -> str:
    """Return the first line of the docstring of a folder or file."""
    path = PACKAGE.joinpath(*layer.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(parsed(path)) or "").split("\n", 1)[0].replace("`", "")


def shown(layer: str) -> str:
    """Return the path of a layer inside ``trsvd/``."""
    path = layer.replace(".", "/")
    return f"{path}/" if (PACKAGE / path).is_dir() else f"{path}.py"


def picture() -> str:
    """Return the layers as text, the top one first."""
    known = layers()
    below = imports(known)
    indent = " " * 17
    entries = []
    for layer in reversed(known):
        others = [shown(other) for other in reversed(known) if other in below[layer]]
        lines = textwrap.wrap(
            f"{shown(layer):<17}{description(layer)}", 96, subsequent_indent=indent
        )
        lines += textwrap.wrap(
            f"imports {', '.join(others) or 'nothing of trsvd'}",
            96,
            initial_indent=indent,
            subsequent_indent=indent + " " * 8,
            break_on_hyphens=False,
        )
        entries.append("\n".join(lines))
    return "```text\n" + "\n\n".join(entries) + "\n```\n"


def renewed(page: str) -> str:
    """Return the page with the picture of today between the two marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{PAGE} does not have the marks {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}{picture()}{END}{after}"


def is_current() -> bool:
    """Return True if the page shows the layers of today."""
    page = PAGE.read_text(encoding="utf-8")
    return page == renewed(page)


def main(arguments: list[str]) -> int:
    """Write the page, or only check it."""
    if "--check" in arguments:
        return 0 if is_current() else 1
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
