"""Read settings from YAML; report each mistake in one line that names the key."""

import difflib
import re
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from milco.config.base import Strict
from milco.config.experiment import Config
from milco.config.source import Source
from milco.errors import MilcoError

_ADDRESSES = "others begin with hf:, https:, mteb: or pypi:"


def parse(values: Any, origin: str = "configuration") -> Config:
    """Validate values that were read from YAML.

    Raises:
        MilcoError: one line per wrong key, with its full name, what is wrong and where.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise MilcoError("\n".join(_explain(origin, problem) for problem in error.errors())) from None


def parse_all(values: dict[str, Any], origin: str = "configuration") -> list[Config]:
    """An experiment and its variants, each with its resolved settings.

    Raises:
        MilcoError: one of them is wrong; the message names it.
    """
    base = parse(values, origin)
    found = [base]
    for name, changes in base.experiments.items():
        changed = merge({**values, "experiments": {}}, {**changes, "experiment": f"{base.experiment}-{name}"})
        found.append(parse(changed, f"{origin}: experiments.{name}"))
    repeated = {other.experiment for config in found for other in config.other_seeds()}
    for name in base.experiments:
        if f"{base.experiment}-{name}" in repeated:
            raise MilcoError(f"{origin}: experiments.{name}: seeds makes an experiment of that name; rename this one")
    return found


def merge(values: Any, changes: Any) -> Any:
    """`values` with `changes`: sections are merged, everything else is replaced."""
    if not (isinstance(values, dict) and isinstance(changes, dict)):
        return changes
    return values | {name: merge(values.get(name), change) for name, change in changes.items()}


def _explain(origin: str, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{origin}: {key}: unknown key; {_meant(problem['loc'])}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | float | int | date):
        of_a_key = problem["loc"][-1] == "[key]"  # the place before it is the key's number
        key = ".".join(map(str, problem["loc"][:-2])) if of_a_key else key
        message = f"{'one of its keys is' if of_a_key else 'this is'} no text for YAML; put it in quotes"
    if problem["type"] == "string_pattern_mismatch" and problem["loc"][-1] == "uri":
        message = f"no address; write file:{problem['input']} for a file or folder of your own; {_ADDRESSES}"
    got = f" (got {problem['input']!r})" if problem["type"] not in ("missing", "value_error") else ""
    return f"{origin}: {key + ': ' if key else ''}{message}{got}"


def _meant(wrong: tuple[str | int, ...]) -> str:
    """Suggestion for an unknown key: the same name in another section, or a similar name."""
    sections: dict[str, type[Strict]] = {"": Config}
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Strict):
            sections[name] = field.annotation
    if wrong[0] == "sources":
        sections = {f"sources.{wrong[1]}": Source}
    known = [f"{place}.{key}".lstrip(".") for place, section in sections.items() for key in section.model_fields]
    same = [key for key in known if key.rpartition(".")[2] == wrong[-1]]
    near = same or difflib.get_close_matches(".".join(map(str, wrong)), known, n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else "config/README.md has all keys"


def load(path: Path) -> Config:
    """Read a configuration from a YAML file."""
    return parse(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """Content of a YAML file without duplicate keys and without numbers that YAML reads differently than written.

    Raises:
        MilcoError: the file has such a key or number, or is not valid YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except FileNotFoundError:
        raise MilcoError(f"{path}: no such configuration") from None
    except OSError as error:
        raise MilcoError(f"{path}: no configuration ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        if isinstance(error, _Misleading):
            raise MilcoError(f"{path}: {error.problem}") from None
        raise MilcoError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, too deep
        raise MilcoError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


class _Misleading(yaml.MarkedYAMLError):
    """Valid YAML that is certainly a mistake."""


class _Loader(yaml.SafeLoader):
    """Reads YAML as `safe_load` does, but raises `_Misleading`."""

    def construct_mapping(self, node, deep=False):
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines and name != "<<":
                raise _Misleading(problem=f"{name} occurs twice in one section (lines {lines[name]} and {line})")
            lines[name] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node):
        return self._as_it_looks(node, super().construct_yaml_int(node))

    def construct_yaml_float(self, node):
        return self._as_it_looks(node, super().construct_yaml_float(node))

    def _as_it_looks(self, node, value):
        if re.fullmatch(r"[-+]?0[0-9_]+|[^:]+:.+", node.value):  # octal, sexagesimal
            line = node.start_mark.line + 1
            raise _Misleading(problem=f"line {line}: {node.value} is {value} to YAML; write that, or put it in quotes")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
