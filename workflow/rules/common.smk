# Shared by all rules. Names that wildcards may take, input functions, devices, and one build at a time.

import re
import shlex
import signal
import sys
from functools import wraps
from pathlib import Path

from snakemake.logging import logger

from gald import paths, plugins
from gald.errors import GaldError
from gald.params import suite_names
from gald.workflow import graph, mutex, preflight

RUN = "{scale}/{dataset}/{leaf}"


def names(known):
    return "|".join(map(re.escape, known))


wildcard_constraints:
    edition="mini|full",
    scale=names(graph.scales()),
    suite=names(suite_names()),
    dataset=names(plugins.available("datasets")),
    leaf=r"[a-z0-9_.-]+-seed[0-9]+",
    table=names(path.stem for path in (paths.PARAMS / "tables").glob("*.yaml")),


# `gald` is found beside this Python, also where the environment was never activated. It is told who its parent is, since
# a Snakemake that dies in its first seconds would be gone before it can look.
beside = shlex.quote(str(Path(sys.executable).parent))
shell.prefix(f"PATH={beside}:$PATH; export GALD_PARENT=$PPID; ")


# Compute nodes of a cluster often reach no internet: downloads stay where Snakemake runs.
localrules:
    download,


# Devices are shared out on this machine only: those of a login node would cap what a cluster's jobs ask for. There the
# profile says how many (`resources: gpu=...`), and a job has what it was given.
if workflow.is_main_process and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", graph.gpus())
# A cluster warns every process of a job ahead of its time limit. The training answers; Snakemake, which waits for it,
# would die, and the job would be over before the checkpoint is written.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def plainly(function):
    # An exception in an input function is shown with a traceback; a refusal is one message to act on.
    @wraps(function)
    def refusing(*arguments):
        try:
            return function(*arguments)
        except (GaldError, OSError) as error:
            logger.error(str(error))
            raise SystemExit(1) from None

    return refusing


def wanted(suite, last="tables"):
    # Evaluated when the suite is asked for: another suite's mistakes are none of this call's business.
    return plainly(lambda wildcards: graph.files_up_to(graph.suite(suite), last))


@plainly
def run_of(wildcards):
    return graph.run(RUN.format(**wildcards))


@plainly
def suite_of(wildcards):
    return graph.suite(wildcards.suite)


def each_run(path):
    return lambda wildcards: [path(run.name) for run in suite_of(wildcards).runs]


def manifest_of(wildcards):
    run = run_of(wildcards)
    return paths.manifest(run.params.edition, run.dataset)


def objects_of(wildcards):
    run = run_of(wildcards)
    return paths.objects(run.params.edition, run.dataset)


def gpus_of(wildcards):
    return int(run_of(wildcards).params.train.device == "cuda")


def cpus_of(wildcards):
    # What a cluster reserves; here the loader's threads take whatever is left.
    params = run_of(wildcards).params.train
    return params.threads + params.workers


@plainly
def begin():
    mutex.claim_build()
    if workflow.touch:
        return
    outputs = [str(path) for job in workflow.dag.needrun_jobs() for path in job.output]
    if workflow.local_exec:
        preflight.check_devices(outputs, graph.gpus())
    preflight.check_complete(outputs)
    preflight.check_writable(outputs)
    withdrawn = {str(Path(path).parts[1]) for path in preflight.withdraw_stale(outputs)}
    if withdrawn:
        logger.info(
            f"withdrawn until made again: stale results of {', '.join(sorted(withdrawn))} in {paths.reports('')}"
        )


if workflow.is_main_process:
    builder = mutex.clear_leftovers()
    if builder is not None:
        logger.warning(builder)
