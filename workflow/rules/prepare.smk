rule prepare:
    input:
        raw=paths.raw_json("{edition}", "{dataset}"),
    output:
        manifest=paths.manifest("{edition}", "{dataset}"),
    log:
        "logs/prepare/{edition}/{dataset}.log",
    conda:
        "../envs/gald.yaml"
    params:
        sections=graph.prepare_params(),
    message:
        "prepare {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald prepare {wildcards.edition}/{wildcards.dataset} --log {log}"
