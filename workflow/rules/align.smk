# Stage 1: sparse alignment on parallel text.


rule align:
    input:
        corpora=artifact("corpora"),
        tokens=artifact("tokens"),
        targets=artifact("teacher"),
        encoder=ENCODER,
        lsr=LSR,
    output:
        directory(model("align")),
    log:
        f"logs/align/{KEYS['align']}.log",
    benchmark:
        f"logs/align/{KEYS['align']}.tsv"
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
        "Stage 1: alignment"
    shell:
        "{resources.environment} {params.launch} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " align --config {params.config} --corpora {input.corpora} --tokens {input.tokens} --targets {input.targets}"
        " --encoder {input.encoder} --lsr {input.lsr} --output {output}"
