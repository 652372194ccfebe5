# Whether the machines that a profile names can train; it writes nothing and runs whenever it is asked for.


rule doctor:
    log:
        "logs/doctor.log",
    retries: 0  # what is wrong stays wrong
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
