"""Build of the extension trsvd/_compiled/_small, where there is a C compiler.

Without a compiler the wheel is pure Python, and everything is computed in the general way.
``TRSVD_EXTENSION=0`` leaves the extension out; ``TRSVD_EXTENSION=1`` makes a failure an error, for
wheels that are published. ``CFLAGS`` are passed to the compiler.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("trsvd/_compiled")


class ExtensionHook(BuildHookInterface):
    """Add the extension to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the extension, and put it into the wheel; into the sources if it is editable."""
        wanted = os.environ.get("TRSVD_EXTENSION", "")
        if wanted == "0":
            return
        folder = Path(self.root) / FOLDER
        with_setuptools = Path(tempfile.mkdtemp())
        try:
            built = compiled(folder, with_setuptools)
        except Exception as error:  # no compiler, no header of Python, or a compiler that fails
            if wanted == "1":
                raise
            self.app.display_warning(
                f"the extension of trsvd was not compiled, small matrices will take longer: {error}"
            )
            return
        if version == "editable":
            (folder / built.name).write_bytes(built.read_bytes())
        else:
            build_data["force_include"][str(built)] = str(FOLDER / built.name)
        build_data["pure_python"] = False
        if "abi3" in built.name or built.suffix == ".pyd":
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"cp311-abi3-{platform}"
        else:
            build_data["infer_tag"] = True


def compiled(folder: Path, target: Path) -> Path:
    """Compile small.c; return the path of the extension."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    stable = not sysconfig.get_config_var("Py_GIL_DISABLED")  # there is no stable ABI without GIL
    extension = Extension(
        "_small",
        [str(folder / "small.c")],
        depends=[str(folder / "small_solver.inc")],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if stable else [],
        extra_compile_args=[] if os.name == "nt" else ["-O3", "-g0"],
        py_limited_api=stable,
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(target), str(target / "temp")
    command.ensure_finalized()
    command.run()
    return next(path for path in target.iterdir() if path.suffix in {".so", ".pyd"})
