# Vectors, searches and measures of every system on every test collection. With evaluate.search_shards > 1, several jobs
# search one shard of the documents each; the rules without `_shard` then merge their results.


rule encode:
    input:
        corpora=lambda wildcards: owner("encode", wildcards).encoded_collections(wildcards.system).path,
        model=lambda wildcards: by_content(owner("encode", wildcards).model(wildcards.system)),
    output:
        temp(directory("artifacts/vectors/{system}-{key}.{shard}")),
    log:
        "logs/encode/{system}-{key}.{shard}.log",
    benchmark:
        "logs/encode/{system}-{key}.{shard}.tsv"
    # Jobs that take the whole machine go first; those that take one core can share it afterwards.
    priority: 1
    conda:
        ENVIRONMENT
    threads: 8
    params:
        config=settings("encode"),
    message:
        "encode the test collections with {wildcards.system}, {wildcards.shard}"
    shell:
        "python -m milco.stages encode --config {params.config} --system {wildcards.system} --shard {wildcards.shard}"
        " --model {input.model:q} --corpora {input.corpora} --output {output} 2>&1 | tee {log}"


rule merge:
    input:
        unnoticed(ENCODED),
    output:
        directory("artifacts/vectors/{system}-{key}"),
    log:
        "logs/merge/{system}-{key}.log",
    benchmark:
        "logs/merge/{system}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        shards=options("shard", ENCODED),
    message:
        "all vectors of {wildcards.system}"
    shell:
        "python -m milco.stages merge {params.shards} --output {output} 2>&1 | tee {log}"


rule evaluate:
    input:
        corpora=needs("evaluate", lambda e: e.collections.path),
        encoder=needs("evaluate", lambda e: e.encoder),
        vectors=vectors_of_system,
        found=shared_by("evaluate"),
    output:
        directory("artifacts/runs/{system}-{key}"),
    log:
        "logs/evaluate/{system}-{key}.log",
    benchmark:
        "logs/evaluate/{system}-{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("evaluate"),
        vectors=searched,
        found=options("found", FOUND["evaluate"]),
    message:
        "measure {wildcards.system}"
    shell:
        "python -m milco.stages evaluate --config {params.config} --system {wildcards.system} --corpora {input.corpora}"
        " --encoder {input.encoder:q} {params.vectors} {params.found} --output {output} 2>&1 | tee {log}"


use rule evaluate as evaluate_shard with:
    input:
        corpora=needs("evaluate", lambda e: e.collections.path),
        encoder=needs("evaluate", lambda e: e.encoder),
        vectors=vectors_of_system,
    output:
        temp(directory("artifacts/runs/{system}-{key}.{shard}")),
    log:
        "logs/evaluate/{system}-{key}.{shard}.log",
    benchmark:
        "logs/evaluate/{system}-{key}.{shard}.tsv"
    params:
        config=settings("evaluate"),
        vectors=searched,
        found=one_shard,
    message:
        "search with {wildcards.system}, {wildcards.shard}"


rule index:
    input:
        corpora=needs("index", lambda e: e.collections.path),
        vectors=needs("index", lambda e: e.vectors[e.config.main].path),
        found=shared_by("index"),
    output:
        directory("artifacts/index/{key}"),
    log:
        "logs/index/{key}.log",
    benchmark:
        "logs/index/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: ALONE  # it measures times; the work takes one core
    params:
        config=settings("index"),
        found=options("found", FOUND["index"]),
    message:
        "Seismic index of every test collection"
    shell:
        "python -m milco.stages index --config {params.config} --corpora {input.corpora} --vectors {input.vectors}"
        " {params.found} --output {output} > {log} 2>&1"


use rule index as index_shard with:
    input:
        corpora=needs("index", lambda e: e.collections.path),
        vectors=needs("index", lambda e: e.vectors[e.config.main].path),
    output:
        temp(directory("artifacts/index/{key}.{shard}")),
    log:
        "logs/index/{key}.{shard}.log",
    benchmark:
        "logs/index/{key}.{shard}.tsv"
    params:
        config=settings("index"),
        found=one_shard,
    message:
        "Seismic index of the documents {wildcards.shard} of every test collection"


rule prune:
    input:
        corpora=needs("prune", lambda e: e.collections.path),
        vectors=needs("prune", lambda e: e.vectors[e.config.main].path),
        found=shared_by("prune"),
    output:
        "artifacts/prune/{key}.parquet",
    log:
        "logs/prune/{key}.log",
    benchmark:
        "logs/prune/{key}.tsv"
    conda:
        ENVIRONMENT
    threads: ALONE
    params:
        config=settings("prune"),
        found=options("found", FOUND["prune"]),
    message:
        "measure pruning budgets"
    shell:
        "python -m milco.stages prune --config {params.config} --corpora {input.corpora} --vectors {input.vectors}"
        " {params.found} --output {output} > {log} 2>&1"


use rule prune as prune_shard with:
    input:
        corpora=needs("prune", lambda e: e.collections.path),
        vectors=needs("prune", lambda e: e.vectors[e.config.main].path),
    output:
        temp(directory("artifacts/prune/{key}.{shard}")),
    log:
        "logs/prune/{key}.{shard}.log",
    benchmark:
        "logs/prune/{key}.{shard}.tsv"
    params:
        config=settings("prune"),
        found=one_shard,
    message:
        "measure pruning budgets, {wildcards.shard}"


# Measure pruning budgets on the development collections, to choose the budget for `auto`: the only measurement on them
# here that affects a result.
rule tune:
    input:
        development=needs("tune", lambda e: e.tuning_collections.path),
        vectors=needs("tune", lambda e: e.development_vectors.path),
    output:
        "artifacts/tune/{key}.parquet",
    log:
        "logs/tune/{key}.log",
    benchmark:
        "logs/tune/{key}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("tune"),
    message:
        "measure pruning budgets on the development collections"
    shell:
        "python -m milco.stages tune --config {params.config} --development {input.development}"
        " --vectors {input.vectors} --output {output} > {log} 2>&1"
