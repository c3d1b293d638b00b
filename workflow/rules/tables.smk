rule tables:
    input:
        metrics=lambda wildcards: [
            paths.metrics(run.name)
            for run in suite_of(wildcards).table_runs(wildcards.table)
        ],
    output:
        csv=paths.table("{suite}", "{table}", "csv"),
        md=paths.table("{suite}", "{table}", "md"),
        tex=paths.table("{suite}", "{table}", "tex"),
        html=report(
            paths.table("{suite}", "{table}", "html"),
            caption="../report/table.rst",
            category="{suite}",
            labels={"table": "{table}"},
        ),
    log:
        "logs/tables/{suite}/{table}.log",
    conda:
        "../envs/gald.yaml"
    params:
        sections=lambda wildcards: graph.table_params(
            suite_of(wildcards), wildcards.table
        ),
    message:
        "table {wildcards.table} of {wildcards.suite}"
    shell:
        "exec gald tables {wildcards.suite} {wildcards.table} --log {log}"


rule report:
    input:
        tables=lambda wildcards: [
            paths.table(wildcards.suite, table.name, suffix)
            for table in suite_of(wildcards).tables
            for suffix in graph.TABLE_SUFFIXES
        ],
        metrics=each_run(paths.metrics),
        predictions=each_run(paths.predictions_json),
        history=each_run(paths.history_csv),
    output:
        index=report(
            paths.index("{suite}"), caption="../report/index.rst", category="{suite}"
        ),
        figures=directory(paths.figures("{suite}")),
        gallery=directory(paths.gallery("{suite}")),
    log:
        "logs/report/{suite}.log",
    conda:
        "../envs/gald.yaml"
    params:
        sections=lambda wildcards: graph.report_params(suite_of(wildcards)),
    message:
        "start page of {wildcards.suite}"
    shell:
        "exec gald report {wildcards.suite} --log {log}"


# The stamp says what the tracking store was told last. It is no result: a store that cannot be reached costs a warning.
rule track:
    input:
        index=paths.index("{suite}"),
        metrics=each_run(paths.metrics),
    output:
        stamp=paths.tracking_stamp("{suite}"),
    log:
        "logs/track/{suite}.log",
    conda:
        "../envs/gald.yaml"
    message:
        "tell the tracking store of {wildcards.suite}"
    shell:
        "exec gald track {wildcards.suite} --log {log}"
