# Check that the nodes of a profile can train. The rule writes no output, so it always runs.


rule doctor:
    log:
        "logs/doctor.log",
    retries: 0  # a retry would find the same problems
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        nodes=1,
        gpus_per_node=0,
        processes_per_node=1,
        environment="",
    params:
        launch=launcher,
    message:
        "check the nodes"
    shell:
        "{resources.environment} bash {params.launch:q} {resources.nodes} {resources.processes_per_node}"
        " {resources.gpus_per_node} {threads} {log}"
        " doctor --gpus-per-node {resources.gpus_per_node}"
