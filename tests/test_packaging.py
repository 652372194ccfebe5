"""The lists of packages (pyproject.toml, environment.yml, requirements.txt, tests/lowest.txt) agree."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {
    "pytorch": "torch",
    "python-duckdb": "duckdb",
}  # packages that conda-forge calls otherwise than PyPI does
TOOLS = {"python", "pip"}  # needed by the environment itself


def bounds(lines: list[str]) -> dict[str, SpecifierSet]:
    """Normalised name → version bounds; a name that is listed twice is an error."""
    wanted = [Requirement(line) for line in lines]
    named = {canonicalize_name(CONDA_NAMES.get(item.name, item.name)): item.specifier for item in wanted}
    assert len(named) == len(wanted)
    return named


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def conda_lines() -> list[str]:
    return [line for line in environment()["dependencies"] if isinstance(line, str)]


def pip_lines() -> list[str]:
    return [line for part in environment()["dependencies"] if isinstance(part, dict) for line in part["pip"]]


def pins(name: str = "requirements.txt") -> dict[str, SpecifierSet]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    words = [line.split("#")[0].strip() for line in lines]
    return bounds([word for word in words if word and not word.startswith("--")])


def test_environment_has_the_packages_and_bounds_of_the_project():
    conda = [line for line in conda_lines() if line.split("=")[0] not in TOOLS]
    assert bounds(conda + pip_lines()) == bounds(project()["dependencies"])


def test_environment_has_the_project_s_python():
    (python,) = [line.removeprefix("python=") for line in conda_lines() if line.startswith("python=")]
    assert f"{python}.0" in SpecifierSet(project()["requires-python"])


def test_citation_and_change_log_have_the_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited["version"] == changes[0] == project()["version"]


def test_environment_is_named_and_takes_packages_from_one_channel():
    assert (environment()["name"], environment()["channels"]) == ("milco", ["conda-forge"])


def test_environment_brings_the_pip_that_its_pip_list_needs():
    assert pip_lines() and "pip" in conda_lines()


def test_requirements_are_exact_versions():
    loose = [name for name, pin in pins().items() if [part.operator for part in pin] != ["=="]]
    assert loose == []


def test_requirements_pin_every_package_of_the_project_within_its_bounds():
    pinned = pins()
    wrong = {
        name: f"{pinned.get(name)} is not {wanted}"
        for name, wanted in bounds(project()["dependencies"]).items()
        if name not in pinned or not wanted.contains(next(iter(pinned[name])).version)
    }
    assert wrong == {}


def test_the_lowest_versions_are_the_bounds_of_the_project():
    """All except that of torch, whose older builds bring gigabytes of CUDA."""
    lowest = {name: next(iter(pin)).version for name, pin in pins("tests/lowest.txt").items()}
    wanted = bounds(project()["dependencies"])
    other = {name for name, bound in wanted.items() if not bound.contains(lowest[name])}
    higher = {name for name, bound in wanted.items() if Version(next(iter(bound)).version) != Version(lowest[name])}
    assert (other, higher) == (set(), {"torch"})


def texts() -> dict[str, str]:
    """All files of the project that say something to somebody."""
    kinds = {".md", ".py", ".smk", ".jinja", ".yaml", ".yml", ".toml", ".sh", ".cff", ".html", ""}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in listed if Path(name).suffix in kinds}


def test_nobody_is_told_to_install_the_package_of_that_name_on_pypi():
    told = re.compile(r"""install (?:-\S+ )*['"`]?milco(?![\w-])|['"`]milco\[""")
    found = {name: told.findall(text) for name, text in texts().items() if name != "tests/test_packaging.py"}
    assert project()["name"] == "milco-lsr" and not {name: words for name, words in found.items() if words}
    assert all(told.search(words) for words in ("pip install -U milco", "pip install 'milco[qdrant]'", "'milco[onnx]'"))


def test_every_extra_that_a_hint_names_is_there():
    hints = {extra for text in texts().values() for extra in re.findall(r"install '\.\[(\w+)\]'", text)}
    assert {"milvus", "qdrant", "onnx", "tracking"} <= hints <= set(project()["optional-dependencies"])


@pytest.mark.parametrize("name", ["Containerfile", "milco.def"])
def test_a_container_takes_the_steps_of_an_installation_by_hand(name):
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    by_hand = re.search(r"^python3 -m venv .* && pip install (.+) && pip install (.+)$", page, re.MULTILINE)
    container = (ROOT / "containers" / name).read_text(encoding="utf-8")
    torch, *steps = [step.strip() for step in re.findall(r"pip install --no-cache-dir ([^&\n]+)", container)]
    assert "torch" in torch.lower() and steps == list(by_hand.groups())
    assert f"torch=torch{pins()['torch']}" in container.lower()
