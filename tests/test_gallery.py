"""The scripts of the gallery run, write small pictures, and are shown on its page."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples" / "gallery").glob("[!_]*.py"))
FOLDER = ROOT / "docs" / "gallery"
LARGEST_PICTURE = 60_000  # bytes


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path, tmp_path, monkeypatch, capsys):
    for library in ("matplotlib", "sklearn"):
        pytest.importorskip(library)
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr("sys.argv", [str(path), str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    if out.startswith("skipped: "):
        pytest.skip(out.strip())
    picture = tmp_path / f"{path.stem}.png"
    assert 3_000 < picture.stat().st_size <= LARGEST_PICTURE
    assert [each.name for each in tmp_path.iterdir()] == [picture.name]
    assert len(out.splitlines()) >= 2, "a script says what it measured"


def test_page_shows_every_script_and_picture():
    page = (FOLDER / "index.md").read_text(encoding="utf-8")
    names = {path.stem for path in SCRIPTS}
    assert len(names) == 8
    assert {path.stem for path in FOLDER.glob("*.png")} == names
    for name in names:
        assert f"{name}.png" in page
        assert f"<../../examples/gallery/{name}.py>" in page
        assert (FOLDER / f"{name}.png").stat().st_size <= LARGEST_PICTURE
    assert len(page.split()) <= 1500


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80
