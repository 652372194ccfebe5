"""Generate config/schema.json and config/README.md from the settings, so each key is documented in one place.

Run from the repository root after every change of milco/config/:  python -m milco.config.documentation
"""

import json
from pathlib import Path
from typing import Any

from milco.config import Config

FOLDER = Path("config")
INTRODUCTION = """\
# Every key of a configuration

Written by `python -m milco.config.documentation` from `milco/config/`; edit those files, not this one. A
configuration only holds values, as `demo.yaml` does. An unknown key, a wrong type or a value out of bounds stops a run
before its first job. Keys that also exist in the authors' training programs have the authors' names.

A key marked † affects how fast a result is computed or what is reported about it, not the result. Changing it reruns
the report at most; `keep` and `patience` of a training name the exceptions.

Editors with JSON Schema support complete and check a configuration that begins with
`# yaml-language-server: $schema=schema.json`.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def schema() -> dict[str, Any]:
    """JSON schema of a configuration."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def readme() -> str:
    """One table per section: key, type, default and meaning."""
    whole = schema()
    sections = {"": whole}
    for key, field in whole["properties"].items():
        name = _section(field) or _section(field.get("additionalProperties", {}))
        if name:
            sections[key if _section(field) else f"{key}.NAME"] = whole["$defs"][name]
    parts = [INTRODUCTION]
    for path, section in sections.items():
        rows = [_row(path, key, section, whole["$defs"]) for key in section["properties"]]
        head = f"## {f'`{path}`' if path else 'Top level'}\n\n{section['description']}\n"
        parts.append("\n".join([head, "| key | type | default | what it means |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _section(field: dict[str, Any]) -> str | None:
    return field["$ref"].rpartition("/")[2] if "$ref" in field else None


def _row(path: str, key: str, section: dict[str, Any], definitions: dict[str, Any]) -> str:
    field = section["properties"][key]
    name = _section(field)
    default = "required" if key in section.get("required", []) else f"`{_value(field['default'])}`"
    if name:
        default, meaning = ("required" if default == "required" else "see there"), definitions[name]["description"]
    else:
        meaning = field["description"]
    cells = [f"`{path + '.' if path else ''}{key}`{' †' if 'layout' in field else ''}", _type(field), default, meaning]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(field: dict[str, Any]) -> str:
    if _section(field) or field.get("additionalProperties") is True:
        return "section"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(_type(choice) for choice in field["anyOf"])
    if field["type"] == "array":
        return f"list of {_type(field['items'])}{', not empty' if field.get('minItems') else ''}"
    if field["type"] == "object":
        return f"{_type(field['additionalProperties'])}s by name"
    return " ".join(
        [field["type"], ", ".join(f"{sign} {field[at]}" for at, sign in BOUNDS.items() if at in field)]
    ).strip()


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def documents() -> dict[str, str]:
    """File name → content of everything that is generated."""
    return {"schema.json": json.dumps(schema(), ensure_ascii=False, indent=2) + "\n", "README.md": readme()}


if __name__ == "__main__":
    for name, content in documents().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
