# From raw archives to the paper's tables. `snakemake --cores all` builds the suite named by the config key `suite`
# (mini unless given: `--config suite=smoke`); `snakemake mini_full` and so on build any suite by its name, and
# `train_all` and so on stop the config's suite after that stage.

from snakemake.utils import min_version

min_version("9.0")
config.setdefault("suite", "mini")


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"


onstart:
    begin()


rule all:
    default_target: True
    input:
        wanted(config["suite"]),
    message:
        f"suite {config['suite']} is complete: open {paths.index(config['suite'])}, or compare runs with `mlflow ui`"


for suite in suite_names():

    rule:
        name:
            suite
        input:
            wanted(suite),
        message:
            f"suite {suite} is complete: open {paths.index(suite)}, or compare runs with `mlflow ui`"


for stage in graph.STAGES:

    rule:
        name:
            f"{stage}_all"
        input:
            wanted(config["suite"], stage),
        message:
            f"suite {config['suite']}: {stage} is complete"
