# Stage 2: distillation with hard negatives and LexEcho.


rule distill:
    input:
        corpora=artifact("corpora"),
        triples=artifact("triples", ".parquet"),
        start=distill_start(),
        lsr=LSR,
    output:
        directory(artifact("distill", "/model")),
    log:
        f"logs/distill/{KEYS['distill']}.log",
    benchmark:
        f"benchmarks/distill/{KEYS['distill']}.tsv"
    threads: 16
    resources:
        nodes=1,
        processes_per_node=1,
    params:
        folder=artifact("distill"),
    message:
        "Stage 2: distillation"
    shell:
        "{LAUNCH} {resources.nodes} {resources.processes_per_node} {threads}"
        " distill --config {SETTINGS} --corpora {input.corpora} --triples {input.triples} --start {input.start}"
        " --lsr {input.lsr} --folder {params.folder} --output {output} 2>&1 | tee {log}"
