# `exec` makes Snakemake itself the parent of the training, which stops when that parent dies. The sections are a param
# so that a changed row, and nothing else, trains again; the training merges the YAML itself and refuses another digest.
rule train:
    input:
        manifest=manifest_of,
    output:
        run=paths.run_json(RUN),
        weights=paths.weights(RUN),
        params=paths.run_params(RUN),
        history=paths.history(RUN),
        history_csv=paths.history_csv(RUN),
    log:
        f"logs/train/{RUN}.log",
    benchmark:
        f"logs/benchmarks/train/{RUN}.tsv"
    # Not within the job of a cluster, whose time may be up: the Snakemake that submitted it submits it again.
    retries: int(workflow.is_main_process)
    conda:
        "../envs/gald.yaml"
    threads: lambda wildcards: run_of(wildcards).params.train.threads
    resources:
        gpu=gpus_of,
        cpus_per_task=cpus_of,
    params:
        sections=lambda wildcards: run_of(wildcards).train_json,
        digest=lambda wildcards: run_of(wildcards).digest(),
    message:
        "train {wildcards.scale}/{wildcards.dataset}/{wildcards.leaf}"
    shell:
        "exec gald train {wildcards.scale}/{wildcards.dataset}/{wildcards.leaf}"
        " --digest {params.digest} --log {log}"
