# What the English retriever says: targets of every English text once, and from them the triples of Stage 2.


rule teacher:
    input:
        corpora=artifact("corpora"),
        teacher=LSR,
    output:
        vectors=artifact("teacher", ".safetensors"),
        ids=artifact("teacher", ".ids.txt"),
    log:
        f"logs/teacher/{KEYS['teacher']}.log",
    benchmark:
        f"benchmarks/teacher/{KEYS['teacher']}.tsv"
    threads: 8
    message:
        "sparse teacher targets, once per English text"
    shell:
        "python -m milco teacher --config {SETTINGS} --corpora {input.corpora} --teacher {input.teacher}"
        " --output {output.vectors} 2>&1 | tee {log}"


rule mine:
    input:
        corpora=artifact("corpora"),
        teacher=artifact("teacher", ".safetensors"),
        sources=[source(name) for name in CONFIG.distill.train_datasets],
    output:
        artifact("triples", ".parquet"),
    log:
        f"logs/mine/{KEYS['triples']}.log",
    benchmark:
        f"benchmarks/mine/{KEYS['triples']}.tsv"
    params:
        sources=[f"--source {name}={source(name)}" for name in CONFIG.distill.train_datasets],
    message:
        "distillation triples with hard negatives"
    shell:
        "python -m milco mine --config {SETTINGS} --corpora {input.corpora} --teacher {input.teacher}"
        " {params.sources} --output {output} 2>&1 | tee {log}"
