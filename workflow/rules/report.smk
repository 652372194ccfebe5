# Report, comparison of experiments, exported model, model card, publication, and plan.


rule report:
    input:
        corpora=needs("report", lambda e: e.stages and e.corpora.path),
        collections=needs("report", lambda e: e.collections.path),
        overlap=needs("report", lambda e: e.stages and e.overlap.path),
        runs=lambda wildcards: runs_of_seeds(lines(owner("report", wildcards))),
        models=lambda wildcards: [f"{folder}/model" for folder in trainings(owner("report", wildcards)).values()],
        index=needs("report", lambda e: e.index.path),
        prune=needs("report", lambda e: e.pruning.path),
        triples=needs("report", lambda e: e.stages and e.triples.path),
        tune=tuned("report"),
    output:
        report=report("results/{experiment}/report.html", caption="../captions/report.rst", category="{experiment}"),
        metrics="results/{experiment}/metrics.csv",
        summary="results/{experiment}/summary.md",
    log:
        "logs/report/{experiment}.log",
    benchmark:
        "logs/report/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("report"),
        published=own("config/published.yaml"),
        figures=FIGURES,
        settings=lambda wildcards: owner("report", wildcards).config.to_yaml(),
        runs=named("runs", "report", runs),
        stages=named("stage", "report", trainings),
        nodes=named("node", "report", times),
        trained=lambda wildcards, input: [
            f"--{name} {input[name]}" for name in ("corpora", "overlap", "triples", "tune") if input[name]
        ],
    message:
        "report of {wildcards.experiment}"
    shell:
        "python -m milco.stages report --config {params.config} {params.trained}"
        " --collections {input.collections} {params.runs}"
        " {params.stages} {params.nodes} --index {input.index} --prune {input.prune}"
        " --published {params.published:q}"
        " --report {output.report} --metrics {output.metrics}"
        " --summary {output.summary} 2>&1 | tee {log}"


rule ablations:
    input:
        collections=BASE.collections.path,
        runs=runs_of_seeds(compared([BASE, *VARIANTS]).values()),
    output:
        page=report(f"{BASE.results}/ablations.html", caption="../captions/ablations.rst", category=BASE.name),
        table=f"{BASE.results}/ablations.csv",
        summary=f"{BASE.results}/ablations.md",
    log:
        f"logs/ablations/{BASE.name}.log",
    benchmark:
        f"logs/ablations/{BASE.name}.tsv"
    conda:
        ENVIRONMENT
    params:
        experiments=[f"--experiment {experiment.settings}" for experiment in [BASE, *VARIANTS]],
        settings=[experiment.config.to_yaml() for experiment in [BASE, *VARIANTS]],
        published=own("config/published.yaml"),
        figures=FIGURES,
        sharing=sharing([BASE, *VARIANTS]),
    message:
        f"{BASE.name} and its variants compared ({{params.sharing}}): {{output.page}}"
    shell:
        "python -m milco.stages ablations {params.experiments} --published {params.published:q}"
        " --page {output.page} --table {output.table} --summary {output.summary} 2>&1 | tee {log}"


rule export:
    input:
        model=needs("export", lambda e: e.distill.path),
        measured=tuned("export"),
    output:
        directory("results/{experiment}/model"),
    log:
        "logs/export/{experiment}.log",
    benchmark:
        "logs/export/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        documents=lambda wildcards: owner("export", wildcards).config.export.prune_documents,
        queries=lambda wildcards: owner("export", wildcards).config.export.prune_queries,
        measured=lambda wildcards, input: f"--measured {input.measured}" if input.measured else "",
        trust=lambda wildcards: "--trust-remote-code" if owner("export", wildcards).config.trusts("distill") else "",
    message:
        "the finished model of {wildcards.experiment}"
    shell:
        "python -m milco export --model {input.model:q} --prune-documents {params.documents:q}"
        " --prune-queries {params.queries:q} {params.measured} {params.trust} --output {output} 2>&1 | tee {log}"


rule card:
    input:
        corpora=needs("card", lambda e: e.corpora.path),
        model="results/{experiment}/model",
        metrics="results/{experiment}/metrics.csv",
        summary="results/{experiment}/summary.md",
        prune=needs("card", lambda e: e.pruning.path),
        tune=tuned("card"),
    output:
        "results/{experiment}/card.md",
    log:
        "logs/card/{experiment}.log",
    benchmark:
        "logs/card/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("card"),
        citation=own("CITATION.cff"),
        settings=lambda wildcards: owner("card", wildcards).config.to_yaml(),
        tune=lambda wildcards, input: f"--tune {input.tune}" if input.tune else "",
    message:
        "model card of {wildcards.experiment}: {output}"
    shell:
        "python -m milco.stages card --config {params.config} --corpora {input.corpora} --model {input.model:q}"
        " --metrics {input.metrics} --summary {input.summary} --prune {input.prune} --citation {params.citation:q}"
        " {params.tune} --output {output} 2>&1 | tee {log}"


rule publish:
    input:
        model="results/{experiment}/model",
        card="results/{experiment}/card.md",
        vectors=published_vectors,
    output:
        "results/{experiment}/published.json",
    log:
        "logs/publish/{experiment}.log",
    benchmark:
        "logs/publish/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("publish"),
        repo=repository,
        vectors=lambda wildcards, input: f"--vectors {input.vectors}" if input.vectors else "",
    message:
        "put the model of {wildcards.experiment} into {params.repo}"
    shell:
        "python -m milco.stages publish --config {params.config} --model {input.model:q} --card {input.card} {params.vectors}"
        " --output {output} 2>&1 | tee {log}"


rule plan:
    output:
        "results/{experiment}/plan.md",
    log:
        "logs/plan/{experiment}.log",
    benchmark:
        "logs/plan/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        config=settings("plan"),
        settings=lambda wildcards: owner("plan", wildcards).config.to_yaml(),
    message:
        "what {wildcards.experiment} will take: {output}"
    shell:
        "python -m milco plan --config {params.config} 2> {log} | tee {output}"
