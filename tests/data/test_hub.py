"""Downloads with the real clients of the Hugging Face Hub, from one on this machine (hub.py), and all its failures."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hub as loopback
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from milco.config import Source
from milco.data import tables
from milco.modeling.model import MilcoModel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / "tests" / "modeling" / "authors-layout"
TOKEN = "hf_averysecrettokenindeed"
PAIRS = "datasets/owner/pairs"
CARD = """---
configs:
- config_name: en_ar
  data_files:
  - {split: train, path: "en_ar/train-*"}
  - {split: test, path: "en_ar/test-*"}
- config_name: en_zh
  data_files:
  - {split: train, path: "en_zh/*"}
---
"""


def parquet(**columns) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="none")
    return stream.getvalue()


def pairs(other: list[str]) -> bytes:
    return parquet(english=[f"Good morning {number}" for number in range(len(other))], non_english=other)


ARABIC = [pairs(["صباح الخير"] * 500), pairs(["مساء الخير"])]
PARALLEL = {
    "README.md": CARD.encode(),
    "en_ar/train-00000-of-00002.parquet": ARABIC[0],
    "en_ar/train-00001-of-00002.parquet": ARABIC[1],
    "en_ar/test-00000-of-00001.parquet": pairs(["x"]),
    "en_zh/train.parquet": pairs(["早上好", "晚上好"]),
}
PARTS = {"en_ar": "ar", "en_zh": "zh"}
WANTED = {
    "en_ar/en_ar/train-00000-of-00002.parquet",
    "en_ar/en_ar/train-00001-of-00002.parquet",
    "en_zh/en_zh/train.parquet",
}


@pytest.fixture
def hub():
    with loopback.running() as running:
        yield running


class Fetch:
    """`python -m milco.stages fetch` of one source, in a working directory and a home of its own."""

    def __init__(self, hub: loopback.Hub, folder: Path):
        self.hub, self.folder, self.output = hub, folder, folder / "resources" / "mine"
        self.output.parent.mkdir()

    def run(self, address: str, token: str | None = TOKEN, offline: str = "0", **source) -> subprocess.CompletedProcess:
        settings = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
        settings["sources"]["mine"] = {"uri": f"hf:{address}", **source}
        (self.folder / "my.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        shutil.rmtree(self.output, ignore_errors=True)  # as Snakemake does
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HF_") and not name.lower().endswith("_proxy")
        }
        environment |= {
            "HF_ENDPOINT": self.hub.address,
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": offline,
            "PYTHONPATH": str(ROOT),
        }
        if token:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-m", "milco.stages", "fetch", "--config", "my.yaml", "--name", "mine"]
        done = subprocess.run(
            [*command, "--output", self.output],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert TOKEN not in done.stdout + done.stderr
        return done

    def succeeds(self, address: str, **source) -> set[str]:
        """Fetch, and give the files that are there then, without revision.json."""
        done = self.run(address, **source)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert [path.name for path in self.output.parent.iterdir()] == ["mine"]
        found = {path.relative_to(self.output).as_posix() for path in self.output.rglob("*") if path.is_file()}
        assert set(self.revision()["files"]) == found - {"revision.json"}
        return found - {"revision.json"}

    def fails(self, address: str, **source) -> str:
        """Fetch, which must fail and leave nothing, and give the one line that says why."""
        done = self.run(address, **source)
        *waits, message = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (1, "")
        assert all(line.startswith("the hub is busy") for line in waits)
        assert message.startswith("milco: error: sources.mine")
        assert not self.output.exists()
        return message.removeprefix("milco: error: ")

    def revision(self) -> dict:
        return json.loads((self.output / "revision.json").read_text(encoding="utf-8"))

    def lock(self) -> dict:
        return json.loads((self.folder / "hub.lock.json").read_text(encoding="utf-8"))


@pytest.fixture
def fetch(hub, tmp_path) -> Fetch:
    return Fetch(hub, tmp_path)


@pytest.fixture
def parallel(fetch):
    """Fetch of a dataset like mMARCO: one configuration for each language."""
    fetch.commit = fetch.hub.commit(PAIRS, PARALLEL)
    return fetch


def read(fetch: Fetch, wanted: list[str], **source) -> list[tuple]:
    dataset = Source(uri="hf:owner/name", **source)
    batches = tables.read_batches(fetch.output, dataset, "mine", wanted)
    return [row for table in batches for row in table.itertuples(index=False, name=None)]


def checkpoint(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_subsets_come_into_folders_of_their_own_and_are_read_without_a_network(parallel, monkeypatch):
    found = parallel.succeeds("owner/pairs", format="pairs", subsets=PARTS, licence="as in the paper")
    assert found == WANTED
    about = parallel.revision()
    assert (about["repository"], about["revision"], about["licence"]) == (PAIRS, parallel.commit, "as in the paper")
    file = about["files"]["en_ar/en_ar/train-00000-of-00002.parquet"]
    assert file == {"size": len(ARABIC[0]), "sha256": hashlib.sha256(ARABIC[0]).hexdigest()}
    assert parallel.lock() == {PAIRS: parallel.commit}
    assert {request.token for request in parallel.hub.log if "owner/pairs" in request.path} == {TOKEN}
    assert {request.token for request in parallel.hub.log if request.path.startswith("/cdn/")} == {None}

    parallel.hub.shutdown()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = read(parallel, tables.PAIR_COLUMNS, format="pairs", subsets=PARTS)
    assert [row[1:] for row in rows] == (
        [("صباح الخير", "ar")] * 500 + [("مساء الخير", "ar"), ("早上好", "zh"), ("晚上好", "zh")]
    )


def test_another_split_is_another_set_of_files(parallel):
    found = parallel.succeeds("owner/pairs", format="pairs", subsets={"en_ar": "ar"}, split="test")
    assert found == {"en_ar/en_ar/test-00000-of-00001.parquet"}
    message = parallel.run("owner/pairs", format="pairs", subsets=PARTS, split="dev").stderr
    assert "sources.mine.split: owner/pairs has no dev (there are: train, test)" in message


def test_commit_of_the_first_download_is_kept_when_the_branch_moves(fetch):
    name = "models/owner/tokenizer"
    first = fetch.hub.commit(name, {"tokenizer.json": b"{}"})
    fetch.succeeds("owner/tokenizer", format="tokenizer")
    moved = fetch.hub.commit(name, {"tokenizer.json": b"[]"})
    fetch.succeeds("owner/tokenizer", format="tokenizer")
    assert (fetch.output / "tokenizer.json").read_bytes() == b"{}"
    assert (fetch.revision()["revision"], fetch.lock()) == (first, {name: first})

    message = fetch.run("owner/tokenizer@main", format="tokenizer").stderr
    assert f"sources.mine.uri: hub.lock.json has owner/tokenizer at {first}, but main is {moved} now; " in message
    assert f'delete the line "{name}" from hub.lock.json' in message
    fetch.succeeds(f"owner/tokenizer@{moved}", format="tokenizer")
    assert (fetch.revision()["revision"], fetch.lock()) == (moved, {name: first})
    (fetch.folder / "hub.lock.json").unlink()
    fetch.succeeds("owner/tokenizer", format="tokenizer")
    assert fetch.lock() == {name: moved}


def test_downloads_at_the_same_time_write_one_lock(hub, tmp_path):
    names = ["one", "two", "three", "four"]
    commits = {f"models/owner/{name}": hub.commit(f"models/owner/{name}", {"tokenizer.json": b"{}"}) for name in names}
    program = (
        "import sys; from pathlib import Path; from milco.config import Source; from milco.data.sources import fetch;"
        "fetch('mine', Source(uri='hf:owner/' + sys.argv[1], format='tokenizer'), Path(sys.argv[1]))"
    )
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(name: str) -> None:
        subprocess.run([sys.executable, "-c", program, name], cwd=tmp_path, env=environment, check=True)

    with ThreadPoolExecutor() as pool:
        list(pool.map(start, names))
    assert json.loads((tmp_path / "hub.lock.json").read_text()) == commits


def test_layout_of_sentence_transformers_with_one_subset_of_many_languages(fetch):
    card = CARD.replace("en_ar", "all").replace("en_zh", "en_de")
    files = {"all/train-0.parquet": pairs(["Guten Morgen", "おはよう"]), "en_de/train.parquet": pairs(["x"])}
    fetch.hub.commit(PAIRS, {"README.md": card.encode(), "all/test-0.parquet": pairs(["x"]), **files})
    message = fetch.fails("owner/pairs", format="pairs", language="de")
    assert message == (
        "sources.mine.subsets: owner/pairs has several subsets; name those to read (there are: all, en_de)"
    )
    assert fetch.succeeds("owner/pairs", format="pairs", subsets={"all": "mul"}) == {"all/all/train-0.parquet"}
    rows = read(fetch, tables.PAIR_COLUMNS, format="pairs", subsets={"all": "mul"})
    assert [row[1:] for row in rows] == [("Guten Morgen", "mul"), ("おはよう", "mul")]


def test_layout_of_distillation_data_without_a_card(fetch):
    item = {"query": ["wo?"], "pos": [["here"]], "neg": [["there", "nowhere"]], "pos_scores": [[9.0]]}
    fetch.hub.commit(PAIRS, {"data/train-0.parquet": parquet(**item, neg_scores=[[1.0, 0.5]], id=["7"])})
    assert fetch.succeeds("owner/pairs", format="triples") == {"default/data/train-0.parquet"}
    assert fetch.revision()["licence"] == "cc0-1.0"
    ((query, pos, neg, _, scores),) = read(fetch, tables.TRIPLE_COLUMNS, format="triples")
    assert (query, list(pos), list(neg), list(scores)) == ("wo?", ["here"], ["there", "nowhere"], [1.0, 0.5])


def test_model_comes_with_what_loading_needs_and_no_more(fetch, teacher_checkpoint):
    wanted = checkpoint(teacher_checkpoint)
    others = ["pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "model.fp16.safetensors", "extra.py", "README.md"]
    fetch.hub.commit("models/owner/splade", {**wanted, **dict.fromkeys(others, b"x")})
    assert fetch.succeeds("owner/splade", format="transformers") == set(wanted)
    assert {path: (fetch.output / path).read_bytes() for path in wanted} == wanted


def test_fetched_models_make_a_model(fetch, teacher_checkpoint, encoder_checkpoint):
    files = checkpoint(encoder_checkpoint)
    fetch.hub.commit("models/owner/encoder", files)
    fetch.succeeds("owner/encoder", format="transformers")
    assert MilcoModel.from_checkpoints(fetch.output, teacher_checkpoint).encode_query(["Katze"]).nnz


def test_pickled_weights_come_only_where_there_are_no_others(fetch):
    fetch.hub.commit("models/owner/old", {"config.json": b"{}", "pytorch_model.bin": b"x", "vocab.txt": b"a\n"})
    found = fetch.succeeds("owner/old", format="transformers")
    assert found == {"config.json", "pytorch_model.bin", "vocab.txt"}


def test_a_model_of_sentence_transformers_comes_with_all_its_modules(fetch):
    query, document = "query_0_SparseStaticEmbedding", "document_0_MLMTransformer"
    wanted = ["modules.json", "router_config.json", "config_sentence_transformers.json", f"{query}/config.json"]
    wanted += [f"{query}/model.safetensors", f"{document}/pytorch_model.bin", f"{document}/tokenizer.json"]
    others = [f"{query}/pytorch_model.bin", "onnx/model.onnx", "openvino/openvino_model.bin", "README.md", "own.py"]
    fetch.hub.commit("models/owner/sparse", {path: b"{}" for path in (*wanted, *others)})
    assert fetch.succeeds("owner/sparse", format="sentence-transformers") == set(wanted)
    trusting = fetch.succeeds("owner/sparse", format="sentence-transformers", trust_remote_code=True)
    assert trusting == {*wanted, "own.py"}


def test_bge_m3_comes_with_the_layer_of_its_sparse_weights(fetch):
    files = {name: b"{}" for name in ("config.json", "tokenizer.json", "modules.json", "pytorch_model.bin")}
    fetch.hub.commit("models/owner/bge", {**files, "colbert_linear.pt": b"x", "1_Pooling/config.json": b"{}"})
    message = fetch.fails("owner/bge", format="bge-m3-sparse")
    assert message.startswith("sources.mine.format: owner/bge holds no sparse_linear.pt, which has the sparse weights")
    fetch.hub.commit("models/owner/m3", {**files, "sparse_linear.pt": b"x", "1_Pooling/config.json": b"{}"})
    assert fetch.succeeds("owner/m3", format="bge-m3-sparse") == {*files, "sparse_linear.pt"}


def test_code_of_a_repository_comes_only_if_it_is_trusted(fetch):
    settings = {"model_type": "unheard-of", "auto_map": {"AutoModel": "modeling.Model"}}
    files = {"config.json": json.dumps(settings).encode(), "modeling.py": b"", "model.safetensors": b"x"}
    fetch.hub.commit("models/owner/new", files)
    message = fetch.fails("owner/new", format="transformers")
    assert message.startswith("sources.mine.trust_remote_code: owner/new cannot be loaded without running Python code")
    assert not any("safetensors" in request.path for request in fetch.hub.log)
    assert fetch.succeeds("owner/new", format="transformers", trust_remote_code=True) == set(files)


def test_a_published_model_of_ours_needs_none_of_its_code(fetch):
    settings = {"model_type": "milco", "auto_map": {"AutoModel": "modeling_milco.MilcoModel"}}
    files = {"config.json": json.dumps(settings).encode(), "model.safetensors": b"x"}
    fetch.hub.commit("models/owner/ours", {**files, "modeling_milco.py": b""})
    assert fetch.succeeds("owner/ours", format="transformers") == set(files)


def test_a_model_of_milco_s_authors_comes_with_the_shape_of_its_encoder(fetch):
    theirs = {path.name: path.read_bytes() for path in (LAYOUT / "released").iterdir()}
    encoder = {path.name: path.read_bytes() for path in (LAYOUT / "encoder").iterdir()}
    fetch.hub.commit("models/omai-research/milco-650m", {**theirs, "milco.py": b"raise SystemExit"})
    message = fetch.fails("omai-research/milco-650m", format="transformers")
    assert message.startswith("sources.mine: the encoder of omai-research/milco-650m: ")
    revision = fetch.hub.commit("models/BAAI/bge-m3-unsupervised", {**encoder, "model.safetensors": b"x"})
    found = fetch.succeeds("omai-research/milco-650m", format="transformers")
    assert found == {*theirs, "encoder/config.json"}
    assert fetch.revision()["encoder"] == {"repository": "models/BAAI/bge-m3-unsupervised", "revision": revision}
    assert fetch.lock()["models/BAAI/bge-m3-unsupervised"] == revision
    assert MilcoModel.from_pretrained(fetch.output).encode_query(["Passwort"]).nnz


@pytest.mark.parametrize("named", ["xlm-roberta-large", "/data/ckpt/bge-m3", "../bge"])
def test_an_encoder_that_is_no_repository_is_said_so_unless_its_shape_is_there(fetch, named):
    theirs = {path.name: path.read_bytes() for path in (LAYOUT / "released").iterdir()}
    settings = json.loads(theirs["config.json"]) | {"multilingual_encoder_checkpoint": named}
    fetch.hub.commit("models/owner/tuned", {**theirs, "config.json": json.dumps(settings).encode()})
    message = fetch.fails("owner/tuned", format="transformers")
    assert message.startswith(f"sources.mine: models/owner/tuned names {named!r} as its encoder, which is no ") or (
        message.startswith(f"sources.mine: owner/tuned names {named!r} as its encoder, which is no ")
    )
    shape = json.loads((LAYOUT / "encoder" / "config.json").read_text(encoding="utf-8"))
    fetch.hub.commit("models/owner/tuned", {"config.json": json.dumps(settings | {"m_config": shape}).encode()})
    (fetch.folder / "hub.lock.json").unlink(missing_ok=True)
    assert fetch.succeeds("owner/tuned", format="transformers") == {*theirs}


def test_code_of_another_repository_is_never_run(fetch):
    settings = {"model_type": "unheard-of", "auto_map": {"AutoModel": "owner/other--modeling.Model"}}
    fetch.hub.commit("models/owner/new", {"config.json": json.dumps(settings).encode(), "model.safetensors": b"x"})
    message = fetch.fails("owner/new", format="transformers", trust_remote_code=True)
    assert message.startswith("sources.mine.trust_remote_code: owner/new wants Python code of a repository by its addr")
    assert "owner/other--modeling.Model" in message


def test_collection_in_beir_layout(fetch):
    files = {"corpus.jsonl": b"{}\n", "queries.jsonl": b"{}\n", "qrels/test.tsv": b"q\td\t1\n"}
    fetch.hub.commit("datasets/owner/exam", {**files, "README.md": b"", "script.py": b""})
    assert fetch.succeeds("owner/exam", format="beir", language="de", document_language="en") == set(files)


WEIGHTS = bytes(40 * 2**20)  # many times the 10 MB that the client writes at a time
MODEL = "models/owner/model"


def ranges(hub: loopback.Hub, path: str) -> list[str | None]:
    """What was asked of a large file, request by request."""
    return [request.range for request in hub.log if request.path.startswith("/cdn/") and request.path.endswith(path)]


def assert_resumed(hub: loopback.Hub) -> None:
    first, second = ranges(hub, "model.safetensors")
    assert first is None and 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(WEIGHTS) // 2


def test_dropped_connection_is_resumed_at_once(fetch):
    fetch.hub.commit(MODEL, {"config.json": b"{}", "model.safetensors": WEIGHTS})
    fetch.hub.fault("model.safetensors", spoil="drop")
    fetch.succeeds("owner/model", format="transformers")
    assert_resumed(fetch.hub)


@pytest.mark.parametrize("way", ["reset", "short"])
def test_download_that_broke_off_is_resumed_at_the_next_try(fetch, way):
    first = fetch.hub.commit(MODEL, {"config.json": b"{}", "model.safetensors": WEIGHTS})
    fetch.hub.fault("model.safetensors", spoil=way)
    message = fetch.fails("owner/model", format="transformers")
    assert message.startswith("sources.mine: ") and "run again" in message
    fetch.hub.commit(MODEL, {"model.safetensors": b"new"})
    fetch.succeeds("owner/model", format="transformers")
    assert (fetch.output / "model.safetensors").read_bytes() == WEIGHTS
    assert fetch.revision()["revision"] == first
    assert_resumed(fetch.hub)


def test_whole_files_are_not_downloaded_again_and_those_of_another_commit_go(fetch):
    parts = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    fetch.hub.commit(MODEL, {"config.json": b"{}", **{path: path.encode() for path in parts}})
    fetch.hub.fault(parts[2], spoil="changed")
    message = fetch.fails("owner/model", format="transformers")
    assert message.startswith(f"sources.mine: the checksum of {parts[2]} is not the one that the hub has for it")
    fetch.hub.commit(MODEL, {parts[1]: None})
    (fetch.folder / "hub.lock.json").unlink()
    assert fetch.succeeds("owner/model", format="transformers") == {"config.json", parts[0], parts[2]}
    assert [len(ranges(fetch.hub, path)) for path in parts] == [1, 1, 2]


def test_truncated_parquet_in_the_repository_is_named(parallel):
    broken = parallel.hub.commit(PAIRS, {"en_zh/train.parquet": PARALLEL["en_zh/train.parquet"][:-20]})
    message = parallel.fails("owner/pairs", format="pairs", subsets=PARTS)
    assert message.startswith("sources.mine: en_zh/train.parquet is not a complete Parquet file in ")
    assert f"in owner/pairs at {broken} (" in message and "hub.lock.json" in message
    parallel.hub.commit(PAIRS, PARALLEL)
    (parallel.folder / "hub.lock.json").unlink()
    assert parallel.succeeds("owner/pairs", format="pairs", subsets=PARTS) == WANTED


def test_wrong_column_is_named_with_those_that_exist(fetch):
    fetch.hub.commit(PAIRS, {"train.parquet": parquet(english=["Door"], german=["Tür"])})
    message = fetch.fails("owner/pairs", format="pairs", language="de")
    assert message == (
        "sources.mine.columns: train.parquet has no column non_english (there are: english, german); "
        "map non_english to one of them"
    )
    columns = {"non_english": "german"}
    fetch.succeeds("owner/pairs", format="pairs", language="de", columns=columns)
    rows = read(fetch, tables.PAIR_COLUMNS, format="pairs", language="de", columns=columns)
    assert rows == [("Door", "Tür", "de")]


def test_subset_that_does_not_exist_is_named_with_those_that_do(parallel):
    message = parallel.fails("owner/pairs", format="pairs", subsets={"en_de": "de"})
    assert message == "sources.mine.subsets: owner/pairs has no subset en_de (there are: en_ar, en_zh)"


def test_format_that_nothing_reads_is_named(fetch):
    fetch.hub.commit(PAIRS, {"train.arrow": b"ARROW1"})
    assert "is made of train.arrow and the like" in fetch.fails("owner/pairs", format="pairs", language="de")
    fetch.hub.commit("datasets/owner/script", {"script.py": b""})
    assert "scripts are no longer supported" in fetch.fails("owner/script", format="pairs", language="de")


def tokenizer(fetch: Fetch) -> loopback.Repository:
    fetch.hub.commit("models/owner/tokenizer", {"tokenizer.json": b"{}"})
    return fetch.hub.repositories["models/owner/tokenizer"]


def test_gated_repository_wants_accepted_terms_and_a_token(fetch):
    tokenizer(fetch).readers = {TOKEN}
    for token, status in ((None, 401), ("hf_another", 403)):
        message = fetch.fails("owner/tokenizer", format="tokenizer", token=token)
        assert message == (
            f"sources.mine: {fetch.hub.address}/owner/tokenizer is gated or private, or there is no such model "
            f"({status}): accept its terms at that page, then set HF_TOKEN or log in with `hf auth login`"
        )
    assert fetch.succeeds("owner/tokenizer", format="tokenizer") == {"tokenizer.json"}


def test_stored_login_is_used(fetch):
    tokenizer(fetch).readers = {TOKEN}
    (fetch.folder / "home").mkdir()
    (fetch.folder / "home" / "token").write_text(TOKEN)
    assert fetch.succeeds("owner/tokenizer", format="tokenizer", token=None) == {"tokenizer.json"}


def test_repository_that_does_not_exist_is_named(fetch):
    message = fetch.fails("owner/nothing", format="tokenizer")
    assert message.startswith(f"sources.mine: there is no model {fetch.hub.address}/owner/nothing (404): ")
    assert "is gated or private, or there is no such model" in fetch.fails(
        "owner/nothing", format="tokenizer", token=None
    )


def test_revision_that_does_not_exist_is_named_with_those_that_do(fetch):
    tokenizer(fetch)
    message = fetch.fails("owner/tokenizer@v2", format="tokenizer")
    assert message == "sources.mine.uri: owner/tokenizer has no revision v2 (there are: main)"
    assert fetch.succeeds("owner/tokenizer@main", format="tokenizer") == {"tokenizer.json"}


@pytest.mark.parametrize("status", [429, 503])
def test_busy_hub_is_asked_again(fetch, status):
    tokenizer(fetch)
    fetch.hub.fault("/api/models", status=status, times=4)
    message = fetch.fails("owner/tokenizer", format="tokenizer")
    assert message.startswith(f"sources.mine: the hub is busy or out of order ({status}) and stayed so; run again")
    fetch.hub.fault("/api/models", status=status, times=2)
    assert fetch.succeeds("owner/tokenizer", format="tokenizer") == {"tokenizer.json"}


def test_hub_that_is_out_of_order_during_a_download_is_asked_again(fetch):
    tokenizer(fetch)
    fetch.hub.fault("/resolve/", status=503, times=2)
    assert fetch.succeeds("owner/tokenizer", format="tokenizer") == {"tokenizer.json"}


def test_offline_mode_is_named(fetch):
    message = fetch.fails("owner/tokenizer", format="tokenizer", offline="1")
    assert message.startswith("sources.mine: hf:owner/tokenizer must be downloaded, but HF_HUB_OFFLINE is set; ")


def test_network_that_is_not_there_is_told_as_such(fetch):
    tokenizer(fetch)
    there = fetch.hub.address
    fetch.hub.address = "http://127.0.0.1:9"
    message = fetch.fails("owner/tokenizer", format="tokenizer")
    assert message.startswith("sources.mine: cannot download hf:owner/tokenizer: ") and "refused" in message
    fetch.hub.address = there
    assert fetch.succeeds("owner/tokenizer", format="tokenizer") == {"tokenizer.json"}
