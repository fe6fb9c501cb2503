"""Pictures of unit balls: shapes that are known, boundaries by the gauges, and what is written."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
import scipy.spatial

from trsvd import cli
from trsvd.balls import KyFanBall, SpectralBall
from trsvd.reports import ball_pictures as _pictures
from trsvd.reports.ball_pictures import Panel, draw, panels_of, paper_panels
from trsvd.reports.ball_shapes import NAMES, Shape, boundary, named_shape, surface

PLAIN = [
    "spectral",
    "nuclear",
    "frobenius",
    "kyfan:1",
    "kyfan:2",
    "kyfan-dual:2",
    "f-muon:0",
    "f-muon:0.25",
    "f-muon:1",
    "f-neon:0.5",
    "f-neon:0.999",
    "f-fanion:2:0.7",
]
DUALS = ["f-muon-dual:0.3", "f-neon-dual:0.5", "f-fanion-dual:2:0.7", "f-muon-dual:1"]
SUM_OF_POLYTOPES = Shape("sum", 0.6 * SpectralBall() + 0.4 * KyFanBall(2))
# Linear programs are solved to 1e-7 at worst, root finders stop below that.
ABS = 1e-6


def norm(name, x):
    """The norms in words of vectors: what the picture of a dual must show."""
    size = -np.sort(-np.abs(x))
    kind, *numbers = name.split(":")
    alpha = float(numbers[-1])
    k = {"f-muon-dual": len(x), "f-neon-dual": 1, "f-fanion-dual": int(float(numbers[0]))}[kind]
    return alpha * size[:k].sum() + (1 - alpha) * np.linalg.norm(x)


def corners(shape, dim):
    """Corners of the hull, as a set."""
    points = boundary(shape, dim)
    hull = scipy.spatial.ConvexHull(points)
    flat = [tuple(equation.round(6) + 0.0) for equation in hull.equations]
    # A corner lies on as many different faces as there are dimensions, and more.
    found = set()
    for point in points[hull.vertices]:
        on = {face for face in set(flat) if abs(np.dot(face[:-1], point) + face[-1]) < 1e-5}
        if len(on) >= dim:
            found.add(tuple(point.round(9) + 0.0))
    return found


def signed_permutations(*entries):
    dim = len(entries)
    return {
        tuple(np.array(entries)[list(order)] * np.array(signs) + 0.0)
        for order in np.ndindex(*(dim,) * dim)
        if len(set(order)) == dim
        for signs in np.array(np.meshgrid(*[[1.0, -1.0]] * dim)).reshape(dim, -1).T
    }


# ---- boundaries -------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_points_have_gauge_one(name, dim):
    shape = named_shape(name)
    points = boundary(shape, dim)
    # The gauge is that of the singular values: signs and order are checked below.
    chamber = points[(np.diff(points, axis=1) <= 0).all(axis=1) & (points[:, -1] >= 0)]
    assert len(chamber)
    for point in chamber:
        assert shape.ball.gauge(np.diag(point)) == pytest.approx(1, abs=ABS)


@pytest.mark.parametrize("dim", [2, 3])
def test_points_of_a_sum_without_frobenius_have_gauge_one(dim):
    for point in boundary(SUM_OF_POLYTOPES, dim):
        assert SUM_OF_POLYTOPES.ball.gauge(np.diag(point)) == pytest.approx(1, abs=ABS)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", DUALS)
def test_points_of_duals_have_dual_norm_one(name, dim):
    for point in boundary(named_shape(name), dim):
        assert norm(name, point) == pytest.approx(1, abs=ABS)


@pytest.mark.parametrize("name", ["f-muon:0.3", "f-neon:0.5", "f-fanion:2:0.7"])
def test_ball_and_dual_are_polar(name):
    """``<x, y> <= 1``, with equality for some y: to second order in a step of 5 degrees."""
    first, *rest = name.split(":")
    dual = named_shape(":".join([f"{first}-dual", *rest]))
    products = boundary(named_shape(name), 3) @ boundary(dual, 3).T
    assert products.max() <= 1 + ABS
    assert products.max(axis=1).min() >= 1 - np.radians(5) ** 2
    assert products.max(axis=0).min() >= 1 - np.radians(5) ** 2


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", [*PLAIN, *DUALS])
def test_points_are_in_convex_position_and_symmetric(name, dim):
    points = boundary(named_shape(name), dim)
    hull = scipy.spatial.ConvexHull(points)
    distance = (points @ hull.equations[:, :-1].T + hull.equations[:, -1]).max(axis=1)
    np.testing.assert_allclose(distance, 0, atol=1e-9)  # points are rounded to 1e-12
    images = {tuple(point.round(9) + 0.0) for point in points}
    for change in (-np.eye(dim), np.eye(dim)[::-1], np.diag([-1.0] + [1.0] * (dim - 1))):
        assert {tuple((point @ change).round(9) + 0.0) for point in points} == images


def test_plane_is_in_order():
    for name in [*PLAIN, *DUALS]:
        x, y = boundary(named_shape(name), 2).T
        turns = np.diff(np.arctan2(y, x))
        assert (turns > 0).all()
        # The whole way round, with a flat side of at most a quarter.
        assert turns.sum() > 1.5 * np.pi - 1e-9


# ---- shapes that are known ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("spectral", signed_permutations(1, 1)),
        ("f-muon:1", signed_permutations(1, 1)),
        ("kyfan:1", signed_permutations(1, 1)),
        ("nuclear", signed_permutations(1, 0)),
        ("f-neon:1", signed_permutations(1, 0)),
        ("kyfan:5", signed_permutations(1, 0)),
        ("f-muon-dual:1", signed_permutations(1, 0)),
    ],
)
def test_polygons(name, expected):
    assert corners(named_shape(name), 2) == expected


def test_flat_faces_end_where_they_should():
    """F-Muon's side is alpha wide on either side of the axis, F-Neon's alpha of the diamond's."""
    points = boundary(named_shape("f-muon:0.3"), 2)
    side = points[np.abs(points[:, 0] - 1) < 1e-9]
    assert np.ptp(side[:, 1]) == pytest.approx(0.6, abs=1e-6)
    points = boundary(named_shape("f-muon:0.3"), 3)
    side = points[np.abs(points[:, 0] - 1) < 1e-9]
    np.testing.assert_allclose(np.ptp(side[:, 1:], axis=0), 0.6, atol=1e-6)
    points = boundary(named_shape("f-neon:0.3"), 2)
    height = points.sum(axis=1)
    side = points[height > height.max() - 1e-9]
    assert np.ptp(side[:, 0]) == pytest.approx(0.3, abs=1e-6)


def test_octagon():
    """A square of side 1.2 and a diamond of diagonal 0.8, added."""
    assert corners(SUM_OF_POLYTOPES, 2) == signed_permutations(1.0, 0.6)


def test_kyfan_two_is_a_rhombic_dodecahedron():
    shape = named_shape("kyfan:2")
    assert corners(shape, 3) == signed_permutations(1, 0, 0) | signed_permutations(0.5, 0.5, 0.5)
    points = boundary(shape, 3)
    body = surface(points)
    assert _volume(body) == pytest.approx(2, rel=1e-9)
    assert len(np.unique(body.normals.round(6) + 0.0, axis=0)) == 12
    assert len(body.creases) == 24


def test_dual_of_kyfan_two_is_a_cuboctahedron():
    shape = named_shape("kyfan-dual:2")
    assert corners(shape, 3) == signed_permutations(1, 1, 0)
    points = np.abs(boundary(shape, 3))
    np.testing.assert_allclose(np.maximum(points.max(axis=1), points.sum(axis=1) / 2), 1, rtol=1e-9)
    body = surface(boundary(shape, 3))
    assert _volume(body) == pytest.approx(20 / 3, rel=1e-9)
    assert len(np.unique(body.normals.round(6) + 0.0, axis=0)) == 14
    lengths = np.linalg.norm(np.diff(body.creases, axis=1)[:, 0], axis=1)
    assert lengths.sum() == pytest.approx(24 * np.sqrt(2), rel=1e-9)


def _volume(body):
    return abs(np.linalg.det(body.triangles)).sum() / 6


@pytest.mark.parametrize("alpha", [0, 0.25, 0.5, 0.75, 1])
def test_areas_of_the_families(alpha):
    """Steiner: the area of a polygon plus a disc is area + perimeter * radius + pi radius^2.

    A polygon through arcs of h = 0.75 degrees loses at most h^2 / 6 of the disc's area.
    """
    radius = 1 - alpha
    for name, area, perimeter in (
        ("f-muon", 4 * alpha**2, 8 * alpha),
        ("f-neon", 2 * alpha**2, 4 * np.sqrt(2) * alpha),
    ):
        exact = area + perimeter * radius + np.pi * radius**2
        found = scipy.spatial.ConvexHull(boundary(named_shape(f"{name}:{alpha}"), 2)).volume
        assert found <= exact + 1e-9
        assert found >= exact - np.radians(0.75) ** 2 / 6 * np.pi * radius**2 - 1e-9


def test_smooth_surfaces_have_no_creases():
    for name in ("frobenius", "f-muon:0.5", "f-neon:0.9", "f-fanion:2:0.3"):
        body = surface(boundary(named_shape(name), 3))
        assert len(body.creases) == 0
        assert body.creases.shape == body.sides.shape == (0, 2, 3)
    ball = surface(boundary(named_shape("frobenius"), 3))
    # A triangle in a cap of h = 5 degrees is at least cos h = 1 - h^2 / 2 away from the centre.
    sphere = 4 * np.pi / 3
    assert sphere * (1 - 3 * np.radians(5) ** 2 / 2) < _volume(ball) < sphere


def test_surface_looks_outward():
    for name in ("kyfan:2", "f-muon:0.5", "f-neon-dual:0.5"):
        body = surface(boundary(named_shape(name), 3))
        assert ((body.triangles.mean(axis=1) * body.normals).sum(axis=1) > 0).all()
        np.testing.assert_allclose(np.linalg.norm(body.normals, axis=1), 1, rtol=1e-9)


# ---- names and panels ---------------------------------------------------------------------------


def test_every_name_is_known():
    for form in NAMES:
        name = form.replace("K", "2").replace("ALPHA", "0.5")
        shape = named_shape(name)
        assert named_shape(f" {name.upper()} ") == shape
        assert np.isfinite(boundary(shape, 2)).all()
    labels = {named_shape(form.replace("K", "2").replace("ALPHA", "0.5")).label for form in NAMES}
    assert len(labels) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "choose of spectral, nuclear"),
        ("", "choose of"),
        ("max", "entries"),
        ("column", "columns of a matrix and not at its singular values"),
        ("row", "rows"),
        ("s-muon:0.5", "entries"),
        ("kyfan", "of the form kyfan:K"),
        ("kyfan:2:3", "of the form kyfan:K"),
        ("spectral:2", "of the form spectral"),
        ("f-fanion:2", "of the form f-fanion:K:ALPHA"),
        ("kyfan:0", "K = '0'"),
        ("kyfan:-1", "K = '-1'"),
        ("kyfan-dual:1.5", "K = '1.5'"),
        ("f-muon:1.5", "ALPHA = '1.5'"),
        ("f-neon:-0.5", "ALPHA = '-0.5'"),
        ("f-neon:nan", "ALPHA = 'nan'"),
        ("f-fanion:2:half", "ALPHA = 'half'"),
    ],
)
def test_names_that_cannot_be_drawn(name, message, tmp_path, capsys):
    with pytest.raises(ValueError, match="is no|looks at|form|number"):
        named_shape(name)
    path = tmp_path / "a.png"
    with pytest.raises(SystemExit) as ended:
        cli.main(["balls", "--out", str(path), "--ball", name])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not path.exists()


def test_the_papers_panels():
    panels = paper_panels()
    assert [panel.dim for panel in panels] == [3, 3, 2, 2]
    assert panels[0].shapes == (named_shape("kyfan:2"),)
    assert panels[1].shapes == (named_shape("kyfan-dual:2"),)
    for panel, name in zip(panels[2:], ("f-muon", "f-neon"), strict=True):
        wanted = [named_shape(f"{name}:{alpha}") for alpha in (0, 0.25, 0.5, 0.75, 1)]
        assert list(panel.shapes) == wanted


def test_chosen_panels():
    names = ["nuclear", "spectral", "nuclear"]
    [plane] = panels_of(names, 2)
    assert plane.shapes == (named_shape("nuclear"), named_shape("spectral"))
    assert [panel.shapes for panel in panels_of(names, 3)] == [(s,) for s in plane.shapes]
    assert {panel.dim for panel in panels_of(names, 3)} == {3}


# ---- files --------------------------------------------------------------------------------------


def pixels(path):
    """Width and height by the header, and the picture in 8-bit colours."""
    image = pytest.importorskip("matplotlib.image")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24]), (image.imread(path)[..., :3] * 255).round()


def covered(image, color):
    """How many pixels have a colour."""
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted) <= 1).all(axis=-1).sum())


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


@pytest.mark.usefixtures("matplotlib")
def test_the_papers_picture(capsys, tmp_path):
    path = tmp_path / "balls.png"
    assert cli.main(["balls", "--out", str(path), "--dpi", "80"]) == 0
    out, err = capsys.readouterr()
    assert out == f"wrote {path}: 12 unit balls\n"
    assert err == ""
    size, image = pixels(path)
    assert size == (768, 768)  # two panels of 4.8 inches
    # Lines of all five colours run through both planes.
    for half in (image[400:, :384], image[400:, 384:]):
        for color in _pictures._COLORS[:5]:
            assert covered(half, color) > 100
    # Both bodies are there, and the dual one, which contains the other, is larger.
    colored = np.ptp(image[:384], axis=-1) > 40
    left, right = colored[:, :384].sum(), colored[:, 384:].sum()
    assert right > 1.5 * left > 1000


@pytest.mark.usefixtures("matplotlib")
def test_dim_chooses(capsys, tmp_path):
    path = tmp_path / "balls.png"
    for options, size, count in (
        (["--dim", "3"], (960, 480), "2 unit balls"),
        (["--dim", "2"], (960, 480), "10 unit balls"),
        (["--ball", "f-neon:0.5"], (480, 480), "1 unit ball\n"),
        (["--ball", "spectral", "--ball", "kyfan:2", "--ball", "nuclear"], (480, 480), "3 unit"),
        (["--ball", "spectral", "--ball", "f-muon:0.5", "--dim", "3"], (960, 480), "2 unit"),
    ):
        assert cli.main(["balls", "--out", str(path), "--dpi", "100", *options]) == 0
        assert count in capsys.readouterr().out
        assert pixels(path)[0] == size


@pytest.mark.usefixtures("matplotlib")
def test_more_balls_than_colors(tmp_path):
    """The legend moves below, and dashes tell apart what has the same colour."""
    names = [f"f-muon:{i / 8}" for i in range(9)]
    draw(panels_of(names, 2), tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text.count("stroke-dasharray") >= 2  # in the axes, and in the legend
    draw(panels_of(names[:7], 2), tmp_path / "b.svg")
    assert "stroke-dasharray" not in (tmp_path / "b.svg").read_text(encoding="utf-8")


@pytest.mark.usefixtures("matplotlib")
def test_lines_are_where_the_boundary_is(tmp_path, monkeypatch):
    """The square alone, by its pixels: four straight sides of equal length."""
    monkeypatch.setattr(_pictures, "_COLORS", ("#FF0000", "#000000"))
    draw([Panel("", 2, (named_shape("spectral"),))], tmp_path / "a.png", dpi=100)
    _, image = pixels(tmp_path / "a.png")
    red = (image[..., 0] > 200) & (image[..., 1] < 80)
    rows, columns = np.nonzero(red.sum(axis=1) > 100)[0], np.nonzero(red.sum(axis=0) > 100)[0]
    width, height = np.ptp(columns), np.ptp(rows)
    assert width > 200
    assert abs(int(width) - int(height)) <= 2  # equal axes, to the pixel on either end


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
@pytest.mark.usefixtures("matplotlib")
def test_other_formats(tmp_path, ending, start):
    path = tmp_path / f"a.{ending}"
    assert cli.main(["balls", "--out", str(path)]) == 0
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 10_000


@pytest.mark.usefixtures("matplotlib")
def test_no_window_and_no_warning(tmp_path):
    code = (
        "import sys; from trsvd import cli; "
        f"code = cli.main(['balls', '--out', {str(tmp_path / 'a.png')!r}, '--dpi', '50']); "
        "sys.exit(code or 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


# ---- what the command refuses -------------------------------------------------------------------


@pytest.fixture
def refused(capsys):
    """Run a command that must end with 2 and one line on stderr; that line."""

    def run(*argv):
        assert cli.main(["balls", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("trsvd balls: error: ")
        return err

    return run


def test_without_matplotlib(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install matplotlib" in refused("--out", tmp_path / "a.png")


@pytest.mark.usefixtures("matplotlib")
def test_files_that_cannot_be_written(refused, tmp_path):
    assert "no such directory" in refused("--out", tmp_path / "none" / "a.png")
    assert "a directory" in refused("--out", tmp_path)
    assert "pictures can be" in refused("--out", tmp_path / "a.nonsense")
    assert "pictures can be" in refused("--out", tmp_path / "a")
    name = "a" * 300 + ".png"  # longer than file systems allow
    assert "cannot be written: " in refused("--out", tmp_path / name)
    (tmp_path / "link.png").symlink_to(tmp_path / "none" / "a.png")
    line = refused("--out", tmp_path / "link.png", "--ball", "spectral", "--dpi", "50")
    assert "link.png: cannot be written: " in line


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--dim", "4"],
        ["--dim", "1"],
        ["--dpi", "0"],
        ["--dpi", "49"],
        ["--dpi", "1201"],
        ["--dpi", "x"],
        ["--nonsense"],
    ],
)
def test_usage(capsys, argv, tmp_path):
    out = ["--out", str(tmp_path / "a.png")] if argv else []
    with pytest.raises(SystemExit) as ended:
        cli.main(["balls", *out, *argv])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_names_every_ball(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["balls", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in (*NAMES, "--out", "--ball", "--dim", "--dpi"):
        assert word in out
