# The only rule that touches a network, and what turns its files into checkpoints and text.


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
        encoder=needs("corpora", lambda e: e.cutter),
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
        encoder=lambda wildcards, input: f"--encoder {shlex.quote(input.encoder)}" if input.encoder else "",
    message:
        "parallel text, known items and test collections"
    shell:
        "python -m milco.stages corpora --config {params.config} {params.sources} {params.encoder} --output {output}"
        " 2>&1 | tee {log}"
