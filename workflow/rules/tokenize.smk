# Token caches: each text of both stages, tokenised once by the multilingual tokenizer.


rule tokenize:
    input:
        corpora=needs("tokenize", lambda e: e.corpora.path),
        encoder=needs("tokenize", lambda e: e.encoder),
    output:
        directory("artifacts/tokens/{key}"),
    log:
        "logs/tokenize/{key}.log",
    benchmark:
        "logs/tokenize/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=settings("tokenize"),
    message:
        "token cache of the parallel text"
    shell:
        "python -m milco.stages tokenize --config {params.config} --corpora {input.corpora} --encoder {input.encoder:q}"
        " --workers {threads} --output {output} 2>&1 | tee {log}"


rule pack:
    input:
        triples=needs("pack", lambda e: e.triples.path),
        tokenizer=needs("pack", lambda e: e.start_tokenizer),
    output:
        directory("artifacts/packed/{key}"),
    log:
        "logs/pack/{key}.log",
    benchmark:
        "logs/pack/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=settings("pack"),
    message:
        "token cache of the triples"
    shell:
        "python -m milco.stages pack --config {params.config} --triples {input.triples} --tokenizer {input.tokenizer:q}"
        " --workers {threads} --output {output} 2>&1 | tee {log}"
