rule evaluate:
    input:
        run=paths.run_json(RUN),
        manifest=manifest_of,
        objects=objects_of,
    output:
        metrics=paths.metrics(RUN),
        predictions=paths.predictions_json(RUN),
    log:
        f"logs/evaluate/{RUN}.log",
    conda:
        "../envs/gald.yaml"
    threads: lambda wildcards: run_of(wildcards).params.evaluate.threads
    resources:
        gpu=gpus_of,
    params:
        sections=lambda wildcards: run_of(wildcards).evaluate_json,
        digest=lambda wildcards: run_of(wildcards).evaluate_digest(),
    message:
        "evaluate {wildcards.scale}/{wildcards.dataset}/{wildcards.leaf}"
    shell:
        "exec gald evaluate {wildcards.scale}/{wildcards.dataset}/{wildcards.leaf}"
        " --digest {params.digest} --log {log}"
