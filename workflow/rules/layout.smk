# Resources of the rules. A profile or --set-resources sets nodes, gpus_per_node and cpus_per_task; this file derives
# the rest. None of them affects a result, so a change reruns nothing.

LAUNCHED = ["align", "distill", "teacher", "mine", "encode", "doctor"]  # rules that may have GPUs
# On one machine the GPU serves one job at a time: the local profile has one unit of the resource `device`. (It is not
# called `gpu`, since the plugin for SLURM makes an option of that word.)
DEVICE = int(has_gpu())
ONE_NODE = ["mine", "encode"]  # those among them that work on one node


LAUNCH = workflow.source_path("../scripts/launch.sh")


def launcher(wildcards, output):
    """The program that starts processes. Where the project lies decides no result (see `settings`)."""
    return LAUNCH


def derived(launched, said):
    """Resources for SLURM and launch.sh, derived from the few numbers that users set.

    A node has one task, which torchrun fills with one process for each GPU, or with one where there is none. With `mpi`
    the plugin does not start the rule's shell with srun; inside such a step, srun could not reach other nodes.
    """

    def number(name, default, least):
        value = said.get(name, default)
        if not isinstance(value, int) or value < least:
            raise WorkflowError(f"resources of {launched}: {name}={value}: expected a whole number of at least {least}")
        return value

    nodes, gpus = number("nodes", 1, 1), number("gpus_per_node", 0, 0)
    processes = number("processes_per_node", max(1, gpus), 1)
    if launched in ONE_NODE and nodes > 1:
        raise WorkflowError(f"resources of {launched}: it works on one node; set nodes=1")
    if launched in ("mine", "encode") and processes > 1:
        several = " and evaluate.encode_shards" if launched == "encode" else ""
        raise WorkflowError(f"resources of {launched}: it works in one process; set gpus_per_node=1{several}")
    if launched in ("align", "distill"):
        try:
            for experiment in EXPERIMENTS.values():
                experiment.config.check_processes(launched, nodes * processes)
        except MilcoError as error:
            raise WorkflowError(
                f"resources of {launched}: nodes={nodes}, {processes} processes each: {error}"
            ) from None
    text = {name: str(said[name]).strip("'\"") for name in ("gpu_type", "slurm_extra") if name in said}
    kind = f"{text['gpu_type']}:" if "gpu_type" in text else ""
    extra = [text.get("slurm_extra"), "--ntasks-per-node=1", f"--gpus-per-node={kind}{gpus}" if gpus else ""]
    return {
        "nodes": nodes,
        "gpus_per_node": gpus,
        "processes_per_node": processes,
        "device": number("device", DEVICE, 0),
        "tasks": nodes,
        "mpi": "srun" if nodes > 1 else 0,
        "slurm_extra": " ".join(filter(None, extra)),
    }


set_resources({launched: derived(launched, said_of(launched)) for launched in LAUNCHED})

if CORES:
    try:
        for experiment in EXPERIMENTS.values():
            experiment.check_precision()
    except MilcoError as error:
        raise WorkflowError(str(error)) from None
