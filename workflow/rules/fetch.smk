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
        config=settings("source-{name}"),
        uri=lambda wildcards: owner("source-{name}", wildcards).config.sources[wildcards.name].uri,
    message:
        "fetch {wildcards.name} from {params.uri}"
    shell:
        "python -m milco fetch --config {params.config} --name {wildcards.name} --output {output} 2>&1 | tee {log}"


rule convert:
    input:
        binary=needs("source-{name}", "binary-{name}"),
        tokenizer=needs("source-{name}", "tokenizer-{name}"),
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
        "python -m milco convert --binary {input.binary} --tokenizer {input.tokenizer} --output {output} 2>&1 | tee {log}"


rule corpora:
    input:
        sources=needs("corpora", "texts"),
        encoder=needs("corpora", "cutter"),
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
        sources=named("source", "corpora", lambda experiment: experiment.sources(experiment.config.used_datasets())),
        encoder=lambda wildcards, input: f"--encoder {input.encoder}" if input.encoder else "",
    message:
        "parallel text, known items and test collections"
    shell:
        "python -m milco corpora --config {params.config} {params.sources} {params.encoder} --output {output}"
        " 2>&1 | tee {log}"
