"""Networks that torch compiles."""

import json
from collections.abc import Callable

import pytest
import torch

from gald import paths
from gald.errors import GaldError
from gald.params import Run
from gald.train.run import reproducible, train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_a_compiled_network_trains_too(make_run: Callable[..., Run]) -> None:
    from torch._inductor import cpp_builder, cpu_vec_isa, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("no compiler here")
    if not cpu_vec_isa.pick_vec_isa():
        pytest.skip("torch writes code that does not compile for a processor without vectors")
    found = []
    for compiled in (False, True):
        run = make_run(train={"max_iters": 4, "log_every": 4, "compile": compiled})
        train(run)
        record = json.loads(paths.run_json(run.name).read_text())
        found.append(json.loads(paths.history(run.name).read_text())["loss"])
        assert record["iterations"] == 4
    assert found[1] == pytest.approx(found[0], rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the compiler imports
def test_a_compiler_that_is_not_there_is_said_in_a_line(make_run: Callable[..., Run]) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    run = make_run(train={"max_iters": 4, "compile": True})
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(GaldError, match=r"camvid.*: torch\.compile failed \(.*\); set train\.compile to false"),
    ):
        train(run)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["bitwise", "seeded"])
def test_a_compiler_chooses_no_kernels_by_their_speed_where_bits_are_promised(
    level: str, make_run: Callable[..., Run]
) -> None:
    from torch._inductor import config

    params = make_run(train={"device": "cuda", "compile": True, "determinism": level}).params.train
    assert not config.deterministic
    with reproducible(params):
        assert config.deterministic == (level == "bitwise")
    assert not config.deterministic
