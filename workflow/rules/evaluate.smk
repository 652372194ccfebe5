# Vectors, searches and measures of every system on every test collection.


rule encode:
    input:
        corpora=artifact("corpora"),
        model=system_model,
    output:
        directory("artifacts/vectors/{system}-{key}"),
    log:
        "logs/encode/{system}-{key}.log",
    benchmark:
        "benchmarks/encode/{system}-{key}.tsv"
    threads: 8
    message:
        "encode the test collections with {wildcards.system}"
    shell:
        "python -m milco encode --config {SETTINGS} --system {wildcards.system} --model {input.model}"
        " --corpora {input.corpora} --output {output} 2>&1 | tee {log}"


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
        "benchmarks/evaluate/{system}-{key}.tsv"
    params:
        vectors=lambda wildcards, input: f"--vectors {input.vectors}" if input.vectors else "",
    message:
        "measure {wildcards.system}"
    shell:
        "python -m milco evaluate --config {SETTINGS} --system {wildcards.system} --corpora {input.corpora}"
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
        f"benchmarks/index/{KEYS['index']}.tsv"
    message:
        "Seismic index of every test collection"
    shell:
        "python -m milco index --config {SETTINGS} --corpora {input.corpora} --vectors {input.vectors}"
        " --output {output} > {log} 2>&1"


rule prune:
    input:
        corpora=artifact("corpora"),
        vectors=vectors("distill"),
    output:
        artifact("prune", ".parquet"),
    log:
        f"logs/prune/{KEYS['prune']}.log",
    benchmark:
        f"benchmarks/prune/{KEYS['prune']}.tsv"
    message:
        "what fewer terms per document cost and save"
    shell:
        "python -m milco prune --config {SETTINGS} --corpora {input.corpora} --vectors {input.vectors}"
        " --output {output} > {log} 2>&1"
