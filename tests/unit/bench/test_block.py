"""The benchmark of the block's parts: what it counts, that the rivals compute the same, and the report's form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gald.bench import _block_aggregation as measured
from gald.bench import _block_gpu, _memory
from gald.bench._block_affinity import Size
from gald.bench._gpu import OnGpu
from gald.bench._memory import Work
from gald.errors import GaldError
from gald.models.block import build_part


def hold(megabytes: int):
    """Work that keeps one tensor, and two at the most."""
    return lambda: torch.ones(megabytes, 2**18).add(1).add(1)


def fail():
    """Work that cannot be made ready."""
    raise ValueError("no such thing")


@pytest.mark.slow
def test_peak_memory_is_what_the_kernel_handed_out() -> None:
    found = _memory.held(Work(f"{__name__}:hold", (64,)), threads=1)
    assert 2 * 64 * 2**20 * 0.95 < found.peak_bytes < 2 * 64 * 2**20 * 1.1
    assert found.seconds > 0


@pytest.mark.slow
def test_a_work_that_fails_is_named_with_its_cause() -> None:
    with pytest.raises(GaldError, match=r"test_block:fail failed: ValueError: no such thing"):
        _memory.peak_bytes(Work(f"{__name__}:fail"), threads=1)


def test_works_are_timed_in_turn_after_a_round_that_does_not_count() -> None:
    order: list[str] = []
    found = _memory._own_seconds([lambda: order.append("a"), lambda: order.append("b")], rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(taken) for taken in found] == [3, 3]


@pytest.mark.parametrize("name", ["non_local", "dual_attention"])
def test_the_textbook_computes_the_same(name: str) -> None:
    module = build_part("aggregation", {"name": name, "zero_start": False}, 8, align_corners=True).double().eval()
    feature = torch.randn(1, 8, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(measured.TEXTBOOK[name](module, feature), module(feature))


def test_products_are_those_of_the_run_in_both_directions() -> None:
    def recorded(training: bool) -> list[str]:
        run = measured.whole("a2", 2, 8, (5, 7), training)
        with measured._Recorder() as recorder:
            run()
        return sorted(call.func._overloadpacket.__name__ for call in recorder.calls)

    assert recorded(training=False) == ["bmm"] * 2 + ["convolution"] * 2  # three projections are one
    assert recorded(training=True) == ["bmm"] * 6 + ["convolution"] * 2 + ["convolution_backward"] * 2
    assert measured.products("a2", 2, 8, (5, 7), True)() is None


def test_report_has_a_row_for_every_aggregation(monkeypatch) -> None:
    def taken(works: list[Work], *, threads: int, rounds: int) -> list[tuple[float, ...]]:
        return [(2.0, 2.0), (1.0, 1.0)]

    def watched(work: Work, *, threads: int) -> _memory.Held:
        return _memory.Held(2**20 if work.arguments[1] == "ours" else 2**25, 1.0)

    monkeypatch.setattr(measured, "seconds", taken)
    monkeypatch.setattr(measured, "held", watched)
    report = measured.aggregation()
    assert "| non_local, forward, peak memory | 2 | 1 MiB | 32 MiB | 0.031 | 0.1 | yes |" in report
    assert "| dual_attention, forward and backward, time | 1 | 2.000 s | 1.000 s | 2.000 | 1 | NO |" in report
    assert "| non_local, 129x257, forward and backward | 2 | 1.00 s, 1 MiB |" in report
    for name in ("none", "psp", "aspp", "cgnl", "a2", "dual_gcn", "criss_cross", "ema", "global_context"):
        reason = measured._REASONS.get(name, "not looked into")
        assert f"| {name}, forward and backward | 1 | 2.000 s | 1.000 s | 2.000 | 1.3 | NO: {reason} |" in report


@pytest.mark.slow
def test_whole_and_products_run_in_a_process_of_their_own() -> None:
    works = [Work(f"{measured.__name__}:{kind}", ("psp", 2, 8, (5, 7), True)) for kind in ("whole", "products")]
    whole, products = _memory.seconds(works, threads=1, rounds=1)
    assert whole > (0.0,)
    assert products > (0.0,)


def test_step_leaves_new_gradients_of_one_pass() -> None:
    module = torch.nn.Conv2d(2, 2, 1)
    feature = torch.randn(1, 2, 3, 3)
    run = measured.step(module, module, feature)
    run()
    first: Tensor = feature.grad
    run()
    assert torch.equal(feature.grad, first)


def test_the_gpus_section_runs_every_part_against_its_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []

    def watched(run: Callable[[], object]) -> OnGpu:
        runs.append(run())
        return OnGpu(0.001 * len(runs), len(runs) << 20, 0)

    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(_block_gpu, "on_gpu", watched)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))  # a built-in would not bind
    report = _block_gpu.gpu("cpu", Size(2, 16, 5, 7), (6, 9))
    assert len(compiled) == 2
    rows = [line.strip("| ").split(" | ") for line in report.splitlines()[6:]]
    assert len(rows) == len(runs) == 2 * 4 + 2 * 3 + 2 * 8
    assert rows[3] == ["affinity 3x3, compiled", "4.00 ms", "4 MiB", "unfold", "4.00", "4.000"]
    assert {row[0] for row in rows} >= {"non_local, ours at 6x9", "criss_cross", "psp, its products"}
