# What a reader wants: one page, one table, one model.

import shlex

STAGES = [stage for stage in ("align", "distill") if stage in SYSTEMS]
NODES = {
    **{f"fetch {name}": f"fetch/{name}-{CONFIG.source_key(name)}" for name in CONFIG.sources},
    **{f"convert {name}": f"convert/{name}-{CONFIG.source_key(name)}" for name in CONFIG.sources},
    "corpora": f"corpora/{KEYS['corpora']}",
    "tokenize": f"tokenize/{KEYS['tokens']}",
    "teacher": f"teacher/{KEYS['teacher']}",
    "mine": f"mine/{KEYS['triples']}",
    **{stage: f"{stage}/{KEYS[stage]}" for stage in STAGES},
    **{f"encode {system}": f"encode/{Path(vectors(system)).name}.*" for system in SYSTEMS if system != "bm25"},
    **{f"evaluate {system}": f"evaluate/{Path(runs(system)).name}" for system in SYSTEMS},
    "index": f"index/{KEYS['index']}",
    "prune": f"prune/{KEYS['prune']}",
}


rule report:
    input:
        corpora=artifact("corpora"),
        runs=[runs(system) for system in SYSTEMS],
        models=[model(stage) for stage in STAGES],
        index=artifact("index"),
        prune=artifact("prune", ".parquet"),
        published=str(Path(workflow.basedir).parent / "config" / "published.yaml"),
    output:
        report=f"{RESULTS}/report.html",
        metrics=f"{RESULTS}/metrics.csv",
        summary=f"{RESULTS}/summary.md",
    log:
        f"logs/report/{EXPERIMENT}.log",
    benchmark:
        f"logs/report/{EXPERIMENT}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
        settings=CONFIG.to_yaml(),
        runs=[f"--runs {system}={runs(system)}" for system in SYSTEMS],
        stages=[f"--stage {stage}={artifact(stage)}" for stage in STAGES],
        nodes=[f"--node {shlex.quote(f'{node}=logs/{path}.tsv')}" for node, path in NODES.items()],
    message:
        "report of {EXPERIMENT}"
    shell:
        "python -m milco report --config {params.config} --corpora {input.corpora} {params.runs}"
        " {params.stages} {params.nodes} --index {input.index} --prune {input.prune}"
        " --published {input.published}"
        " --report {output.report} --metrics {output.metrics}"
        " --summary {output.summary} 2>&1 | tee {log}"


rule export:
    input:
        model("distill"),
    output:
        directory(f"{RESULTS}/model"),
    log:
        f"logs/export/{EXPERIMENT}.log",
    benchmark:
        f"logs/export/{EXPERIMENT}.tsv"
    conda:
        ENVIRONMENT
    message:
        "the finished model of {EXPERIMENT}"
    shell:
        "cp -R {input} {output} 2>&1 | tee {log}"


rule plan:
    output:
        f"{RESULTS}/plan.md",
    log:
        f"logs/plan/{EXPERIMENT}.log",
    benchmark:
        f"logs/plan/{EXPERIMENT}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
        settings=CONFIG.to_yaml(),
    message:
        "what {EXPERIMENT} will take: {output}"
    shell:
        "python -m milco plan --config {params.config} 2> {log} | tee {output}"
