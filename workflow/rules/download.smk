rule download:
    output:
        raw=paths.raw_json("{edition}", "{dataset}"),
    log:
        "logs/download/{edition}/{dataset}.log",
    conda:
        "../envs/gald.yaml"
    params:
        sections=lambda wildcards: plainly(graph.download_params)(
            wildcards.edition, wildcards.dataset
        ),
    message:
        "download {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald download {wildcards.edition}/{wildcards.dataset} --log {log}"
