# Downloads, and the rules that turn their files into checkpoints and text.


rule fetch:
    output:
        directory("resources/{name}-{key}"),
    log:
        "logs/fetch/{name}-{key}.log",
    benchmark:
        "logs/fetch/{name}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("fetch"),
        uri=lambda wildcards: owner("fetch", wildcards).config.sources[wildcards.name].uri,
    message:
        "fetch {wildcards.name} from {params.uri}"
    shell:
        "python -m milco.stages fetch --config {params.config} --name {wildcards.name} --output {output} 2>&1 | tee {log}"


rule convert:
    input:
        binary=lambda wildcards: by_content(owner("convert", wildcards).source(wildcards.name)),
        tokenizer=tokenizer_of_source,
    output:
        directory("artifacts/checkpoint/{name}-{key}"),
    log:
        "logs/convert/{name}-{key}.log",
    benchmark:
        "logs/convert/{name}-{key}.tsv"
    conda:
        ENVIRONMENT
    message:
        "turn the 4-bit file of {wildcards.name} into a transformers checkpoint"
    shell:
        "python -m milco.stages convert --binary {input.binary:q} --tokenizer {input.tokenizer:q} --output {output} 2>&1 | tee {log}"


rule corpora:
    input:
        sources=lambda wildcards: map(by_content, texts(owner("corpora", wildcards)).values()),
    output:
        directory("artifacts/corpora/{key}"),
    log:
        "logs/corpora/{key}.log",
    benchmark:
        "logs/corpora/{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("corpora"),
        sources=named("source", "corpora", texts),
    message:
        "parallel text and known items"
    shell:
        "python -m milco.stages corpora --config {params.config} {params.sources} --output {output} 2>&1 | tee {log}"


rule collections:
    input:
        sources=lambda wildcards: map(by_content, tests(owner("collections", wildcards)).values()),
        encoder=needs("collections", lambda e: e.cutter),
    output:
        directory("artifacts/collections/{key}"),
    log:
        "logs/collections/{key}.log",
    benchmark:
        "logs/collections/{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("collections"),
        sources=named("source", "collections", tests),
        encoder=cutter,
    message:
        "test collections"
    shell:
        "python -m milco.stages collections --config {params.config} {params.sources} {params.encoder} --output {output}"
        " 2>&1 | tee {log}"


rule development:
    input:
        sources=lambda wildcards: map(by_content, looks(owner("development", wildcards)).values()),
        encoder=needs("development", lambda e: e.cutter),
    output:
        directory("artifacts/development/{system}-{key}"),
    log:
        "logs/development/{system}-{key}.log",
    benchmark:
        "logs/development/{system}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("development"),
        sources=named("source", "development", looks),
        encoder=cutter,
    message:
        "development collections for {wildcards.system}"
    shell:
        "python -m milco.stages development --config {params.config} {params.sources} {params.encoder} --output {output}"
        " 2>&1 | tee {log}"


rule overlap:
    input:
        corpora=needs("overlap", lambda e: e.corpora.path),
        triples=needs("overlap", lambda e: e.triples.path),
        collections=needs("overlap", lambda e: e.collections.path),
    output:
        "artifacts/overlap/{key}.json",
    log:
        "logs/overlap/{key}.log",
    benchmark:
        "logs/overlap/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=settings("overlap"),
    message:
        "queries of the test collections that occur in the training text"
    shell:
        "python -m milco.stages overlap --config {params.config} --corpora {input.corpora} --triples {input.triples}"
        " --collections {input.collections} --workers {threads} --output {output} 2>&1 | tee {log}"
