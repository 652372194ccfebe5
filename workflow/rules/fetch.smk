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
        config=SETTINGS,
        uri=lambda wildcards: CONFIG.sources[wildcards.name].uri,
    message:
        "fetch {wildcards.name} from {params.uri}"
    shell:
        "python -m milco fetch --config {params.config} --name {wildcards.name} --output {output} 2>&1 | tee {log}"


rule convert:
    input:
        binary=lambda wildcards: source(wildcards.name),
        tokenizer=lambda wildcards: source(CONFIG.sources[wildcards.name].tokenizer),
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
        sources=[source(name) for name in CONFIG.used_datasets()],
        encoder=ENCODER if any(CONFIG.sources[name].chunk_tokens for name in CONFIG.used_datasets()) else [],
    output:
        directory(artifact("corpora")),
    log:
        f"logs/corpora/{KEYS['corpora']}.log",
    benchmark:
        f"logs/corpora/{KEYS['corpora']}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
        sources=[f"--source {dataset}" for dataset in datasets()],
        encoder=lambda wildcards, input: f"--encoder {input.encoder}" if input.encoder else "",
    message:
        "parallel text, known items and test collections"
    shell:
        "python -m milco corpora --config {params.config} {params.sources} {params.encoder} --output {output}"
        " 2>&1 | tee {log}"
