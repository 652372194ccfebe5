"""Seismic, in this process and a folder."""

import json
from collections.abc import Iterable
from pathlib import Path

import scipy.sparse

from milco.evaluation.index import Index
from milco.files import finished_folder, write_json
from milco.outputs import consists
from milco.tools.engines.base import Engine, Hits, Part, checked, last_of


class Seismic(Engine):
    """A folder with a Seismic index and the ids of its documents. Approximate, see `Index.search`."""

    def write(self, parts: Iterable[Part], replace: bool = False) -> int:
        folder = Path(self.place)
        if folder.exists() and not (replace and consists("ids.json", "index.*")(folder)):
            raise self._refuse_second()
        found = [part for part in checked(parts) if part[0]]
        if not found:
            raise self._nothing_written()
        ids = [identifier for names, _ in found for identifier in names]
        last = last_of(ids)
        with finished_folder(folder) as draft:
            Index.build(scipy.sparse.vstack([rows for _, rows in found], format="csr")[last]).save(draft / "index")
            write_json(draft / "ids.json", [ids[row] for row in last])
        return len(ids)

    def search(self, queries: scipy.sparse.csr_array, k: int) -> list[Hits]:
        folder = Path(self.place)
        if not (folder / "ids.json").exists():
            raise self._nothing_there()
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        rankings, _ = Index.load(folder / "index").search(queries, k)
        return [[(ids[row], score) for row, score in ranking] for ranking in rankings]
