# Paths of everything, and where they come from. An artifact lies under a key made of all settings that decide it
# (milco.config.Config.keys), so that experiments share what they have in common and a changed setting never meets
# an old checkpoint.

import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent))
from milco.config import parse as parse_settings
from milco.errors import MilcoError
from milco.sources import local_path

if not config:
    raise WorkflowError("no configuration: add --configfile config/demo.yaml or your own")
try:
    CONFIG = parse_settings(config)
except MilcoError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = CONFIG.experiment
RESULTS = f"results/{EXPERIMENT}"
SETTINGS = f"{RESULTS}/config.yaml"
KEYS = CONFIG.keys()
ENVIRONMENT = str(Path(workflow.basedir).parent / "environment.yml")


def write_settings(settings, path):
    """Write the resolved settings, unless they lie there already."""
    path = Path(path)
    if not path.exists() or path.read_text(encoding="utf-8") != settings.to_yaml():
        path.parent.mkdir(parents=True, exist_ok=True)
        settings.save(path)


def artifact(stage, suffix=""):
    """Where a stage of this experiment leaves its result."""
    return f"artifacts/{stage}/{KEYS[stage]}{suffix}"


def model(stage):
    """The finished model of a training stage; checkpoints and metrics lie beside it."""
    return f"{artifact(stage)}/model"


def source(name):
    """Where a source lies on this machine, fetched or the user's own."""
    local = local_path(CONFIG.sources[name].uri)
    return str(local) if local else f"resources/{name}-{CONFIG.source_key(name)}"


def checkpoint(name):
    """A transformers checkpoint: the source itself, or what is converted from it."""
    if CONFIG.sources[name].format == "transformers":
        return source(name)
    return f"artifacts/checkpoint/{name}-{CONFIG.source_key(name)}"


def datasets(wildcards=None):
    """Text sources of this experiment, as `name=path`."""
    return [f"{name}={source(name)}" for name in CONFIG.used_datasets()]


def distill_start(wildcards=None):
    """What Stage 2 starts from: Stage 1, another model, or the bare encoder."""
    start = CONFIG.distill.pretrained_alignment_checkpoint
    if start == "align":
        return model("align")
    return checkpoint(CONFIG.model.multilingual_encoder_checkpoint if start == "none" else start)


def vectors(system):
    """Vectors that a system searches with; the pivot view alone is cut out of those of Stage 2."""
    system = system.removesuffix("-pivot")
    return f"artifacts/vectors/{system}-{KEYS[f'vectors-{system}']}"


def runs(system):
    """Runs and measures of a system."""
    key = KEYS[f"runs-{system.removesuffix('-pivot')}"]
    return f"artifacts/runs/{system}-{key}"


def system_vectors(wildcards):
    """Input of a search; BM25 needs no vectors."""
    return [] if wildcards.system == "bm25" else vectors(wildcards.system)


def system_model(wildcards):
    """The model whose vectors a system searches with."""
    return {
        "align": model("align"),
        "distill": model("distill"),
        "teacher": LSR,
        "dense": ENCODER,
    }[wildcards.system]


ENCODER = checkpoint(CONFIG.model.multilingual_encoder_checkpoint)
LSR = checkpoint(CONFIG.model.lsr_encoder_checkpoint)
SYSTEMS = CONFIG.systems()
SHARDS = [f"{shard}-of-{CONFIG.evaluate.encode_shards}" for shard in range(1, CONFIG.evaluate.encode_shards + 1)]


wildcard_constraints:
    system="|".join(SYSTEMS),
    name="|".join(CONFIG.sources),
    key="[0-9a-f]{10}",
    shard="[0-9]+-of-[0-9]+",


def forget_forced(settings):
    """Let the stages that --forcerun or --forceall names begin anew, instead of handing out what they made before."""
    for stage in ("align", "distill"):
        if settings.forceall or stage in settings.forcerun:
            for name in (".trained", "checkpoints"):
                shutil.rmtree(Path(artifact(stage)) / name, ignore_errors=True)


onstart:
    # What the programs read, and what explains the results. It is no output: its content is no reason to run a job,
    # the keys in the paths are.
    write_settings(CONFIG, SETTINGS)
    forget_forced(workflow.dag_settings)
