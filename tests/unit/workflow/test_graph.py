"""What a suite asks for, and what decides it."""

import pytest

from gald.errors import ParamsError
from gald.workflow import graph


def test_every_stage_of_smoke_asks_for_every_file_of_every_run(in_root):
    suite = graph.suite("smoke")
    assert graph.stage_files(suite, "download") == [
        "data/raw/mini/cityscapes/raw.json",
        "data/raw/mini/camvid/raw.json",
    ]
    assert graph.stage_files(suite, "prepare")[:3] == [
        "data/prepared/mini/cityscapes/manifest.json",
        "reports/datasets/mini/cityscapes.html",
        "reports/datasets/mini/cityscapes-objects.json",
    ]
    train = graph.stage_files(suite, "train")
    assert len(train) == 5 * len(suite.runs) == 20
    leaf = f"{suite.runs[0].row}-seed0"
    assert train[:5] == [
        f"runs/smoke/cityscapes/{leaf}/run.json",
        f"runs/smoke/cityscapes/{leaf}/weights.safetensors",
        f"runs/smoke/cityscapes/{leaf}/params.yaml",
        f"runs/smoke/cityscapes/{leaf}/history.jsonl",
        f"reports/smoke/history/cityscapes/{leaf}.csv",
    ]
    assert len(graph.stage_files(suite, "evaluate")) == 2 * len(suite.runs)
    assert set(graph.stage_files(suite, "tables")) == {
        *(f"reports/smoke/tables/benchmarks.{suffix}" for suffix in ("csv", "md", "tex", "html")),
        *("reports/smoke/index.html", "reports/smoke/figures", "reports/smoke/gallery", ".gald/tracking/smoke.json"),
    }
    everything = graph.files_up_to(suite)
    assert len(everything) == len(set(everything)) == 2 + 8 + 20 + 8 + 8
    assert graph.files_up_to(suite, "prepare") == everything[:10]


def test_download_params_name_generator_and_seed(in_root):
    from gald.datasets._synthetic import GENERATOR_VERSION

    drawn = f'{{"edition":"mini","generator":{GENERATOR_VERSION},"seed":0,"source":"segnet"}}'
    assert graph.download_params("mini", "camvid") == drawn
    assert graph.download_params("full", "ade20k") == '{"edition":"full","source":"challenge"}'


def test_a_published_number_is_part_of_its_table_only(in_root):
    suite = graph.suite("smoke")
    before = graph.table_params(suite, "benchmarks"), graph.report_params(suite)
    assert '"published"' in before[0]
    assert '"published"' not in before[1]


def test_gpus_follow_the_visible_devices(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for visible, count in (("0,1", 2), ("", 0), ("-1", 0), ("GPU-5a", 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert graph.gpus() == count
    monkeypatch.setenv("PATH", "")  # a list of devices does not make them
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert graph.gpus() == 0


def test_a_broken_nvidia_smi_means_no_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert graph.gpus() == 0
    program.write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    assert graph.gpus() == 2


def test_an_unknown_run_is_refused_with_the_nearest_name(in_root):
    name = graph.suite("smoke").runs[0].name
    with pytest.raises(ParamsError, match=f"did you mean '{name}'"):
        graph.run(name.replace("-seed0", "-seeed0"))
