import io
import logging
from pathlib import Path

import pytest

from gald.train import history


def lines(count: int) -> list[dict[str, float]]:
    return [{"iteration": 10 * (i + 1), "loss": 1 / (i + 1), "learning_rate": 0.01} for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1234])
def test_the_csv_has_at_most_200_rows_and_the_last(count: int) -> None:
    rows = history.as_csv(lines(count)).splitlines()
    assert rows[0] == "iteration,loss,learning_rate"
    assert min(count, 100) <= len(rows) - 1 <= 200
    if count:
        assert rows[-1] == f"{10 * count},{1 / count:.6g},0.01"


def test_resuming_forgets_what_came_after(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for line in lines(5):
        history.append(path, line)
    with path.open("a") as file:
        file.write('{"iteration": 60, "lo')  # killed in the middle of a line
    assert history.read(path) == lines(5)
    history.truncate(path, 35)
    assert history.read(path) == lines(3)


def test_garbage_of_a_crash_ends_a_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for line in lines(2):
        history.append(path, line)
    with path.open("ab") as file:
        file.write(b"\xff\xfe\x00\x00\n")
    assert history.read(path) == lines(2)
    history.truncate(path, 20)
    assert path.read_bytes().count(b"\n") == 2


def test_plain_progress_says_where_it_is_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    monkeypatch.setattr("gald.train.history.time.monotonic", lambda: clock[0])
    progress = history.Progress("mini/x/y-seed0", start=100, stop=200)
    with caplog.at_level(logging.INFO):
        for iteration in range(101, 201):
            clock[0] += 0.5
            progress.show(iteration, 1.25)
    assert caplog.messages == [
        "mini/x/y-seed0: 130/200, loss 1.2500, 0.5 s/it, 35 s left",
        "mini/x/y-seed0: 160/200, loss 1.2500, 0.5 s/it, 20 s left",
        "mini/x/y-seed0: 190/200, loss 1.2500, 0.5 s/it, 5 s left",
        "mini/x/y-seed0: 200/200, loss 1.2500, 0.5 s/it, took 50 s",
    ]


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_one_line_is_updated_and_gives_way_to_messages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal, clock = Terminal(), [100.0]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("gald.train.history.time.monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "60")
    progress = history.Progress("mini/x/y-seed0", start=0, stop=4)
    for iteration in range(1, 5):
        clock[0] += 90
        progress.show(iteration, 1.25)
        if iteration == 2:
            logging.getLogger("gald.train").warning("a message")
    clear = "\r\x1b[K"
    assert terminal.getvalue() == (
        f"{clear}mini/x/y-seed0: 1/4, loss 1.2500, 90 s/it, 4.5 min left"
        f"{clear}mini/x/y-seed0: 2/4, loss 1.2500, 90 s/it, 3 min left"
        f"{clear}"
        f"{clear}mini/x/y-seed0: 3/4, loss 1.2500, 90 s/it, 90 s left"
        f"{clear}mini/x/y-seed0: 4/4, loss 1.2500, 90 s/it, took 6 min\n"
    )
    assert caplog.messages == ["a message"]
    logging.getLogger("gald").warning("after the end")
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (200, "mini/cityscapes/psp-affinity-seed0: 1/4, loss 1.2500, 90 s/it, 4.5 min left"),
        (76, "mini/cityscapes/psp-affinity-seed0: 1/4, loss 1.2500, 90 s/it, 4.5 min left"),
        (75, ".../cityscapes/psp-affinity-seed0: 1/4, loss 1.2500, 90 s/it, 4.5 min left"),
        (46, "...0: 1/4, loss 1.2500, 90 s/it, 4.5 min left"),
        (43, ": 1/4, loss 1.2500, 90 s/it, 4.5 min left"),
        (30, ": 1/4, loss 1.2500, 90 s/it, "),
    ],
)
def test_the_updating_line_fits_and_gives_up_the_name_first(
    columns: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, clock = Terminal(), [100.0]
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("gald.train.history.time.monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", str(columns))
    progress = history.Progress("mini/cityscapes/psp-affinity-seed0", start=0, stop=4)
    clock[0] += 90
    progress.show(1, 1.25)
    assert terminal.getvalue() == f"\r\x1b[K{shown}"
    assert len(shown) < columns
    monkeypatch.setattr(history.Progress, "_shown_live", False)
