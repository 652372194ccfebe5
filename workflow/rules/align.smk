# Stage 1: sparse alignment on parallel text.


rule align:
    input:
        corpora=needs("align", lambda e: e.corpora.path),
        tokens=needs("align", lambda e: e.tokens.path),
        targets=needs("align", lambda e: e.targets.path),
        encoder=needs("align", lambda e: e.encoder),
        lsr=needs("align", lambda e: e.lsr),
        development=looked_at("align", lambda e: e.align),
    output:
        directory("artifacts/align/{key}/model"),
    log:
        "logs/align/{key}.log",
    benchmark:
        "logs/align/{key}.tsv"
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
        config=settings("align"),
        launch=launcher,
    message:
        "Stage 1: alignment"
    shell:
        "{resources.environment} bash {params.launch:q} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " align --config {params.config} --corpora {input.corpora} --tokens {input.tokens} --targets {input.targets}"
        " --encoder {input.encoder:q} --lsr {input.lsr:q} --development {input.development} --output {output}"
