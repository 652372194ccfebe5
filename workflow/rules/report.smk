# What a reader wants: one page, one table, one model, and how experiments differ.

PUBLISHED = Path(workflow.basedir).parent / "config" / "published.yaml"


def published(wildcards, output):
    """Published figures. What they are is a parameter too, where they lie decides nothing (see `settings`)."""
    return str(PUBLISHED)


def stages(experiment):
    """Training stages of an experiment, with the folders of their metrics."""
    return {stage: experiment.folder(stage) for stage in ("align", "distill") if stage in experiment.config.systems()}


def runs(experiment):
    """Systems of an experiment, with their runs and measures."""
    return {system: experiment.places[f"runs-{system}"] for system in experiment.config.systems()}


def nodes(experiment):
    """Nodes of an experiment, with the files of their times."""
    keys, systems = experiment.keys, experiment.config.systems()
    sources = [(rule, name) for rule in ("fetch", "convert") for name in experiment.config.sources]
    vectors = {system: Path(experiment.places[f"vectors-{system}"]).name for system in systems if system != "bm25"}
    found = {
        **{f"{rule} {name}": f"{rule}/{name}-{keys[f'source-{name}']}" for rule, name in sources},
        "corpora": f"corpora/{keys['corpora']}",
        "tokenize": f"tokenize/{keys['tokens']}",
        "teacher": f"teacher/{keys['teacher']}",
        "mine": f"mine/{keys['triples']}",
        **{stage: f"{stage}/{keys[stage]}" for stage in stages(experiment)},
        **{f"encode {system}": f"encode/{name}.*" for system, name in vectors.items()},
        **{f"evaluate {system}": f"evaluate/{Path(path).name}" for system, path in runs(experiment).items()},
        "index": f"index/{keys['index']}",
        "prune": f"prune/{keys['prune']}",
    }
    return {name: f"logs/{path}.tsv" for name, path in found.items()}


rule report:
    input:
        corpora=needs("report", "corpora"),
        runs=lambda wildcards: runs(owner("report", wildcards)).values(),
        models=lambda wildcards: [f"{folder}/model" for folder in stages(owner("report", wildcards)).values()],
        index=needs("report", "index"),
        prune=needs("report", "prune"),
    output:
        report="results/{experiment}/report.html",
        metrics="results/{experiment}/metrics.csv",
        summary="results/{experiment}/summary.md",
    log:
        "logs/report/{experiment}.log",
    benchmark:
        "logs/report/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("report"),
        published=published,
        figures=PUBLISHED.read_text(encoding="utf-8"),
        settings=lambda wildcards: owner("report", wildcards).config.to_yaml(),
        runs=named("runs", "report", runs),
        stages=named("stage", "report", stages),
        nodes=named("node", "report", nodes),
    message:
        "report of {wildcards.experiment}"
    shell:
        "python -m milco report --config {params.config} --corpora {input.corpora} {params.runs}"
        " {params.stages} {params.nodes} --index {input.index} --prune {input.prune}"
        " --published {params.published}"
        " --report {output.report} --metrics {output.metrics}"
        " --summary {output.summary} 2>&1 | tee {log}"


def sharing(experiments):
    """How many of the nodes that some experiments need are made once for several of them."""
    needed = [path for experiment in experiments for path in nodes(experiment).values()]
    return f"{len(needed)} nodes, of which {len(needed) - len(set(needed))} are shared"


rule ablations:
    input:
        corpora=BASE.places["corpora"],
        runs=[experiment.places[f"runs-{system}"] for experiment, system in compared([BASE, *VARIANTS]).values()],
    output:
        page=f"{BASE.places['results']}/ablations.html",
        table=f"{BASE.places['results']}/ablations.csv",
        summary=f"{BASE.places['results']}/ablations.md",
    log:
        f"logs/ablations/{BASE.name}.log",
    benchmark:
        f"logs/ablations/{BASE.name}.tsv"
    conda:
        ENVIRONMENT
    params:
        experiments=[f"--experiment {experiment.places['settings']}" for experiment in [BASE, *VARIANTS]],
        settings=[experiment.config.to_yaml() for experiment in [BASE, *VARIANTS]],
        published=published,
        figures=PUBLISHED.read_text(encoding="utf-8"),
        sharing=sharing([BASE, *VARIANTS]),
    message:
        "{BASE.name} and its variants compared ({params.sharing}): {output.page}"
    shell:
        "python -m milco ablations {params.experiments} --published {params.published}"
        " --page {output.page} --table {output.table} --summary {output.summary} 2>&1 | tee {log}"


rule export:
    input:
        needs("export", "distill"),
    output:
        directory("results/{experiment}/model"),
    log:
        "logs/export/{experiment}.log",
    benchmark:
        "logs/export/{experiment}.tsv"
    conda:
        ENVIRONMENT
    message:
        "the finished model of {wildcards.experiment}"
    shell:
        "python -m milco export --model {input} --output {output} 2>&1 | tee {log}"


rule plan:
    output:
        "results/{experiment}/plan.md",
    log:
        "logs/plan/{experiment}.log",
    benchmark:
        "logs/plan/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("plan"),
        settings=lambda wildcards: owner("plan", wildcards).config.to_yaml(),
    message:
        "what {wildcards.experiment} will take: {output}"
    shell:
        "python -m milco plan --config {params.config} 2> {log} | tee {output}"
