# Stage 2: distillation with hard negatives and LexEcho.


rule distill:
    input:
        corpora=needs("distill", lambda e: e.corpora.path),
        triples=needs("distill", lambda e: e.packed.path),
        start=needs("distill", lambda e: e.start),
        lsr=needs("distill", lambda e: e.lsr),
        development=looked_at("distill", lambda e: e.distill),
    output:
        directory("artifacts/distill/{key}/model"),
    log:
        "logs/distill/{key}.log",
    benchmark:
        "logs/distill/{key}.tsv"
    priority: 1
    conda:
        ENVIRONMENT
    threads: 16
    resources:
        nodes=1,
        gpus_per_node=0,
        processes_per_node=1,
        environment="",
    params:
        config=settings("distill"),
        launch=launcher,
    message:
        "Stage 2: distillation"
    shell:
        "{resources.environment} bash {params.launch:q} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " distill --config {params.config} --corpora {input.corpora} --triples {input.triples} --start {input.start:q}"
        " --lsr {input.lsr:q} --development {input.development} --output {output}"
