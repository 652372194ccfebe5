# Stage 2: distillation with hard negatives and LexEcho.


rule distill:
    input:
        corpora=artifact("corpora"),
        triples=artifact("triples", ".parquet"),
        start=distill_start(),
        lsr=LSR,
    output:
        directory(model("distill")),
    log:
        f"logs/distill/{KEYS['distill']}.log",
    benchmark:
        f"logs/distill/{KEYS['distill']}.tsv"
    conda:
        ENVIRONMENT
    threads: 16
    resources:
        nodes=1,
        gpus_per_node=0,
        processes_per_node=1,
        environment="",
    params:
        config=SETTINGS,
        launch=LAUNCH,
    message:
        "Stage 2: distillation"
    shell:
        "{resources.environment} {params.launch} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " distill --config {params.config} --corpora {input.corpora} --triples {input.triples} --start {input.start}"
        " --lsr {input.lsr} --output {output}"
