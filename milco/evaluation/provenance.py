"""Machine and code of each stage, from the environment.json that the stage wrote."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from milco.environment import recorded
from milco.experiments import Experiment, Node

NOT_RECORDED = "not recorded"
COUNT = re.compile(r"\d+ × ")
SILENT = {"fetch", "convert"}  # rules whose results do not depend on the machine


class Place(NamedTuple):
    """The environment of a stage: package versions, and commit and machine as text (`not recorded` if missing). Without
    devices it was made on the CPU."""

    commit: str
    processor: str
    cores: str
    devices: str
    versions: dict[str, str]

    @classmethod
    def of(cls, environment: dict[str, Any] | None) -> "Place":
        if environment is None:
            return cls(NOT_RECORDED, NOT_RECORDED, NOT_RECORDED, NOT_RECORDED, {})
        devices = environment["devices"]
        named = {name: f"{devices.count(name)} × {name}" for name in devices if name != "cpu"}
        versions = {"Python": environment["python"], **environment["packages"]}
        return cls(
            environment["commit"] or "unknown",
            environment["processor"],
            str(environment["cores"]),
            ", ".join(named.values()),
            {name: version for name, version in versions.items() if version},
        )


class Provenance:
    """Where all stages of some experiments were made; a stage that they share counts once.

    Args:
        stages: (stage, a place where it was made); a stage comes several times if its parts were made in several
            places.
    """

    def __init__(self, stages: list[tuple[str, Place]]):
        self.places: list[tuple[Place, list[str]]] = []
        for stage, place in stages:
            known = [names for other, names in self.places if other == place]
            if known:
                known[0].append(stage)
            else:
                self.places.append((place, [stage]))
        names = dict.fromkeys(name for place, _ in self.places for name in place.versions)
        versions = {name: _different(place.versions.get(name, "none") for place, _ in self._known) for name in names}
        self.common = {name: found[0] for name, found in versions.items() if len(found) == 1}
        self.differing = {name: found for name, found in versions.items() if len(found) > 1}

    @classmethod
    def of(cls, experiments: list[Experiment]) -> "Provenance":
        """Read it beside the results of the stages, as far as they are still there."""
        base, labels = experiments[0], dict[Node, str]()
        for experiment in experiments:
            prefix = "" if experiment is base else f"{experiment.name.removeprefix(f'{base.name}-')}: "
            for node in experiment.nodes:
                if node.rule not in SILENT and Path(node.path).exists():
                    labels.setdefault(node, f"{prefix}{node.label}")
        return cls([(label, place) for node, label in labels.items() for place in _places_of(node)])

    @property
    def _known(self) -> list[tuple[Place, list[str]]]:
        return [(place, stages) for place, stages in self.places if place.commit != NOT_RECORDED]

    @property
    def mixture(self) -> list[str]:
        """Differences between the stages that may affect results; empty if there are none."""
        devices = _different(COUNT.sub("", place.devices) for place, _ in self._known if place.devices)
        found = {"commits": self._all("commit"), "processors": self._all("processor"), "devices": devices}
        found |= self.differing
        return [f"{name} {', '.join(values)}" for name, values in found.items() if len(values) > 1]

    def __str__(self) -> str:
        """In half a sentence."""
        if self.mixture:
            return f"a mixture: {'; '.join(self.mixture)}"
        if not self._known:
            return "nothing says where and by which commit it was made"
        (commit,), (processor,), devices = map(self._all, ("commit", "processor", "devices"))
        cores = sorted(map(int, self._all("cores")))
        span = f"{cores[0]}" if len(cores) == 1 else f"{cores[0]} to {cores[-1]}"
        return ", ".join([f"commit {commit}", processor, f"{span} cores", *filter(None, devices)])

    @property
    def rows(self) -> list[list[str]]:
        """Cells of a table by place, the head first; versions that all have in common are left out."""
        rows = [["stages", "commit", "processor", "cores", "devices", "versions"]]
        for place, stages in self.places:
            own = ", ".join(f"{name} {place.versions.get(name, 'none')}" for name in self.differing)
            told = (own or "as below") if place.versions else NOT_RECORDED
            listed = "all" if len(self.places) == 1 else ", ".join(dict.fromkeys(stages))
            rows.append([listed, *place[:3], place.devices or "–", told])
        return rows

    @property
    def versions(self) -> str:
        """The versions that all have in common."""
        return ", ".join(f"{name} {version}" for name, version in self.common.items()) or NOT_RECORDED

    def _all(self, name: str) -> list[str]:
        return _different(getattr(place, name) for place, _ in self.places)


def _places_of(node: Node) -> list[Place]:
    """The places of a node; a training has its record beside its model."""
    path = Path(node.path)
    found = recorded(path.parent if node.rule in ("align", "distill") else path)
    return list(map(Place.of, found)) if found else [Place.of(None)]


def _different(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
