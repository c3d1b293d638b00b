rule prepare:
    input:
        raw=paths.raw_json("{edition}", "{dataset}"),
    output:
        manifest=paths.manifest("{edition}", "{dataset}"),
    log:
        "logs/prepare/{edition}/{dataset}.log",
    conda:
        "../envs/gald.yaml"
    threads: plainly(graph.prepare_processes)()
    params:
        sections=graph.prepare_params(),
    message:
        "prepare {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald prepare {wildcards.edition}/{wildcards.dataset}"
        " --processes {threads} --log {log}"


# A store is another way to read the same pixels, so that no training depends on it: whoever packs later, or changes his
# mind, trains nothing again. It goes first all the same, and a training that finds it under way waits for it.
rule pack:
    input:
        manifest=paths.manifest("{edition}", "{dataset}"),
    output:
        store=paths.packed_json("{edition}", "{dataset}"),
    log:
        "logs/pack/{edition}/{dataset}.log",
    priority: 10
    conda:
        "../envs/gald.yaml"
    message:
        "pack {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald pack {wildcards.edition}/{wildcards.dataset} --log {log}"


rule audit:
    input:
        manifest=paths.manifest("{edition}", "{dataset}"),
    output:
        page=report(
            paths.audit("{edition}", "{dataset}"),
            caption="../report/audit.rst",
            category="datasets",
        ),
    log:
        "logs/audit/{edition}/{dataset}.log",
    conda:
        "../envs/gald.yaml"
    message:
        "audit {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald audit {wildcards.edition}/{wildcards.dataset} --log {log}"


# Which objects count as small is fixed for a benchmark, and stored: scores by size would else not be comparable.
rule objects:
    input:
        manifest=paths.manifest("{edition}", "{dataset}"),
    output:
        areas=paths.objects("{edition}", "{dataset}"),
    log:
        "logs/objects/{edition}/{dataset}.log",
    conda:
        "../envs/gald.yaml"
    message:
        "objects {wildcards.edition}/{wildcards.dataset}"
    shell:
        "exec gald objects {wildcards.edition}/{wildcards.dataset} --log {log}"
