"""Who imports whom in milco/: only downwards between its rooms, and never in a circle."""

import ast
from pathlib import Path

import networkx
import pytest
from miniature import ROOT

# From the ground up. What lies in no folder, and the settings, is the ground.
ROOMS = ["config", "modeling", "data", "evaluation", "training", "tools", "stages"]
FILES = sorted((ROOT / "milco").rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules of milco that a file imports, at its top or within a function."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = f"{package}.{node.module}" if node.level else str(node.module)
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return (found & MODULES) - {"milco", module_of(path)}


def floor(module: str) -> int:
    room = module.split(".")[1] if module.count(".") else ""
    return ROOMS.index(room) if room in ROOMS else 0


def test_every_folder_is_a_room():
    assert {path.parent.name for path in (ROOT / "milco").glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_upwards(path):
    if path == ROOT / "milco" / "__main__.py":  # the command itself
        return
    here = floor(module_of(path))
    assert [module for module in imported(path) if floor(module) > here] == []


def test_no_module_imports_itself_by_way_of_others():
    graph = networkx.DiGraph()
    for path in FILES:
        # `from package.module import name` names the package, too, whose own file imports its modules.
        names = imported(path)
        names -= {name for name in names if any(other.startswith(f"{name}.") for other in names)}
        graph.add_edges_from((module_of(path), name) for name in names)
    assert list(networkx.simple_cycles(graph)) == []


def test_what_a_published_model_is_made_of_knows_nothing_of_experiments():
    files = [path for path in FILES if path.parent.name == "modeling"]
    foreign = {name for path in files for name in imported(path) if not name.startswith("milco.modeling")}
    assert len(files) > 5 and foreign == {"milco.errors"}
