# Targets: the English retriever encodes every English text once. And the triples of Stage 2.


rule teacher:
    input:
        corpora=needs("teacher", lambda e: e.corpora.path),
        teacher=needs("teacher", lambda e: e.lsr),
    output:
        directory("artifacts/teacher/{key}"),
    log:
        "logs/teacher/{key}.log",
    benchmark:
        "logs/teacher/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        nodes=1,
        gpus_per_node=0,
        processes_per_node=1,
        environment="",
    params:
        config=settings("teacher"),
        launch=launcher,
    message:
        "sparse teacher targets, once per English text"
    shell:
        "{resources.environment} bash {params.launch:q} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " teacher --config {params.config} --corpora {input.corpora} --teacher {input.teacher:q} --output {output}"


rule mine:
    input:
        corpora=needs("mine", lambda e: e.corpora.path),
        teacher=needs("mine", lambda e: e.targets.path if e.config.reads_targets() else None),
        sources=lambda wildcards: map(by_content, triple_texts(owner("mine", wildcards)).values()),
        miner=needs("mine", lambda e: e.miner),
        scorer=needs("mine", lambda e: e.scorer),
    output:
        "artifacts/triples/{key}.parquet",
    log:
        "logs/mine/{key}.log",
    benchmark:
        "logs/mine/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=settings("mine"),
        sources=named("source", "mine", triple_texts),
        models=lambda wildcards, input: [
            f"--{name} {shlex.quote(input[name])}" for name in ("teacher", "miner", "scorer") if input[name]
        ],
    message:
        "distillation triples with hard negatives"
    shell:
        "python -m milco.stages mine --config {params.config} --corpora {input.corpora}"
        " {params.sources} {params.models} --output {output} 2>&1 | tee {log}"
