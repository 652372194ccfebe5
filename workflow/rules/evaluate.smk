# Vectors, searches and measures of every system on every test collection.


rule encode:
    input:
        corpora=artifact("corpora"),
        model=system_model,
    output:
        temp(directory("artifacts/vectors/{system}-{key}.{shard}")),
    log:
        "logs/encode/{system}-{key}.{shard}.log",
    benchmark:
        "logs/encode/{system}-{key}.{shard}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=SETTINGS,
    message:
        "encode the test collections with {wildcards.system}, {wildcards.shard}"
    shell:
        "python -m milco encode --config {params.config} --system {wildcards.system} --shard {wildcards.shard}"
        " --model {input.model} --corpora {input.corpora} --output {output} 2>&1 | tee {log}"


rule merge:
    input:
        [f"artifacts/vectors/{{system}}-{{key}}.{shard}" for shard in SHARDS],
    output:
        directory("artifacts/vectors/{system}-{key}"),
    log:
        "logs/merge/{system}-{key}.log",
    benchmark:
        "logs/merge/{system}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        shards=lambda wildcards, input: [f"--shard {shard}" for shard in input],
    message:
        "all vectors of {wildcards.system}"
    shell:
        "python -m milco merge {params.shards} --output {output} 2>&1 | tee {log}"


rule evaluate:
    input:
        corpora=artifact("corpora"),
        encoder=ENCODER,
        vectors=system_vectors,
    output:
        directory("artifacts/runs/{system}-{key}"),
    log:
        "logs/evaluate/{system}-{key}.log",
    benchmark:
        "logs/evaluate/{system}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
        vectors=lambda wildcards, input: f"--vectors {input.vectors}" if input.vectors else "",
    message:
        "measure {wildcards.system}"
    shell:
        "python -m milco evaluate --config {params.config} --system {wildcards.system} --corpora {input.corpora}"
        " --encoder {input.encoder} {params.vectors} --output {output} 2>&1 | tee {log}"


rule index:
    input:
        corpora=artifact("corpora"),
        vectors=vectors("distill"),
    output:
        directory(artifact("index")),
    log:
        f"logs/index/{KEYS['index']}.log",
    benchmark:
        f"logs/index/{KEYS['index']}.tsv"
    conda:
        ENVIRONMENT
    message:
        "Seismic index of every test collection"
    shell:
        "python -m milco index --corpora {input.corpora} --vectors {input.vectors} --output {output} > {log} 2>&1"


rule prune:
    input:
        corpora=artifact("corpora"),
        vectors=vectors("distill"),
    output:
        artifact("prune", ".parquet"),
    log:
        f"logs/prune/{KEYS['prune']}.log",
    benchmark:
        f"logs/prune/{KEYS['prune']}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=SETTINGS,
    message:
        "what fewer terms per document cost and save"
    shell:
        "python -m milco prune --config {params.config} --corpora {input.corpora} --vectors {input.vectors}"
        " --output {output} > {log} 2>&1"
