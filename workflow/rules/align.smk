# Stage 1: sparse alignment on parallel text.


rule align:
    input:
        corpora=artifact("corpora"),
        tokens=artifact("tokens"),
        targets=artifact("teacher", ".safetensors"),
        encoder=ENCODER,
        lsr=LSR,
    output:
        directory(artifact("align", "/model")),
    log:
        f"logs/align/{KEYS['align']}.log",
    benchmark:
        f"benchmarks/align/{KEYS['align']}.tsv"
    threads: 16
    resources:
        nodes=1,
        processes_per_node=1,
    params:
        folder=artifact("align"),
    message:
        "Stage 1: alignment"
    shell:
        "{LAUNCH} {resources.nodes} {resources.processes_per_node} {threads}"
        " align --config {SETTINGS} --corpora {input.corpora} --tokens {input.tokens} --targets {input.targets}"
        " --encoder {input.encoder} --lsr {input.lsr} --folder {params.folder} --output {output} 2>&1 | tee {log}"
