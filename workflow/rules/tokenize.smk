# The token cache: every text once, as ids of the multilingual tokenizer.


rule tokenize:
    input:
        corpora=artifact("corpora"),
        encoder=ENCODER,
    output:
        directory(artifact("tokens")),
    log:
        f"logs/tokenize/{KEYS['tokens']}.log",
    benchmark:
        f"logs/tokenize/{KEYS['tokens']}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=SETTINGS,
    message:
        "token cache of the parallel text"
    shell:
        "python -m milco tokenize --config {params.config} --corpora {input.corpora} --encoder {input.encoder}"
        " --workers {threads} --output {output} 2>&1 | tee {log}"
