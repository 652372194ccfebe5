# What the English retriever says: targets of every English text once, and from them the triples of Stage 2.


rule teacher:
    input:
        corpora=artifact("corpora"),
        teacher=LSR,
    output:
        directory(artifact("teacher")),
    log:
        f"logs/teacher/{KEYS['teacher']}.log",
    benchmark:
        f"logs/teacher/{KEYS['teacher']}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        processes_per_node=1,
    params:
        config=SETTINGS,
    message:
        "sparse teacher targets, once per English text"
    shell:
        "python -m milco teacher --config {params.config} --corpora {input.corpora} --teacher {input.teacher}"
        " --workers {resources.processes_per_node} --output {output} 2>&1 | tee {log}"


rule mine:
    input:
        corpora=artifact("corpora"),
        teacher=artifact("teacher"),
        sources=[source(name) for name in CONFIG.distill.train_datasets],
    output:
        artifact("triples", ".parquet"),
    log:
        f"logs/mine/{KEYS['triples']}.log",
    benchmark:
        f"logs/mine/{KEYS['triples']}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
        sources=[f"--source {name}={source(name)}" for name in CONFIG.distill.train_datasets],
    message:
        "distillation triples with hard negatives"
    shell:
        "python -m milco mine --config {params.config} --corpora {input.corpora} --teacher {input.teacher}"
        " {params.sources} --output {output} 2>&1 | tee {log}"
