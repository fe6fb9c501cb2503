"""Find related texts by latent semantic analysis of Python's own docstrings.

Each document is the docstring of a function, class or module of some standard packages. The
truncated SVD of the sparse matrix of documents by words places documents with related words close
together, even if they share none.

    python examples/gallery/latent_semantic_analysis.py [folder of the picture]
"""

import ast
import sysconfig
from pathlib import Path

import numpy as np
from _picture import save
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import TfidfVectorizer

import trsvd

PACKAGES = ["asyncio", "email", "tkinter", "unittest", "xml", "http", "logging"]
SHOWN = ["email", "tkinter", "unittest"]


def docstrings(package: str) -> dict[str, str]:
    """Return the docstrings of a standard package, by name; nothing is imported."""
    root = Path(sysconfig.get_path("stdlib"))
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if len(text) > 80:
                    found[f"{module}.{getattr(node, 'name', '')}".rstrip(".")] = text
    return found


def main() -> None:
    by_package = {package: docstrings(package) for package in PACKAGES}
    names = [name for texts in by_package.values() for name in texts]
    package_of = np.array([package for package, texts in by_package.items() for _ in texts])
    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2)
    A = vectorizer.fit_transform(text for texts in by_package.values() for text in texts.values())

    result = trsvd.svds(A, 50, tol=1e-4, rng=0)
    U, S, Vh = result
    documents = U * S
    documents /= np.linalg.norm(documents, axis=1, keepdims=True) + 1e-12
    print(f"{A.shape[0]} documents by {A.shape[1]} words, {A.nnz} nonzero: {result.status.name}")

    query = vectorizer.transform(["parse the headers of a mail message"])
    place = (query @ Vh.T).ravel()
    order = np.argsort(documents @ place)[::-1][:5]
    print("nearest to 'parse the headers of a mail message':")
    for i in order:
        print(f"  {names[i]}")
    assert sum(package_of[i] in ("email", "http") for i in order) >= 3

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    panels[0].semilogy(np.arange(1, 51), S, ".")
    panels[0].set(title="leading singular values", xlabel="index")
    for package in SHOWN:
        points = documents[package_of == package]
        panels[1].plot(points[:, 1], points[:, 2], ".", label=package, alpha=0.6)
    panels[1].set(title="documents", xlabel="second coordinate", ylabel="third coordinate")
    panels[1].legend()
    save(figure, __file__)


if __name__ == "__main__":
    main()
