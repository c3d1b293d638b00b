"""A question that was stopped goes on where it was, and only there."""

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from gald import files
from gald.commands.evaluation import Question, evaluate_otherwise
from gald.datasets import load_spec
from gald.evaluate.predictor import Predictor
from gald.params import Run
from gald.process import locking
from tests.unit.commands.answers import contents, png


@pytest.mark.parametrize("masks", [None, Path("kept")])
def test_a_question_that_was_stopped_goes_on(trained: Run, monkeypatch: pytest.MonkeyPatch, masks: Path | None) -> None:
    question = Question(protocol="multi_scale", masks=masks, out=Path("scores.json"))
    evaluate_otherwise(trained, question)
    expected = Path("scores.json").read_bytes(), contents(Path("kept"))
    Path("scores.json").unlink()
    shutil.rmtree("kept", ignore_errors=True)
    real, asked = Predictor.__call__, []

    def stopping(self: Predictor, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(self, image, size)

    monkeypatch.setattr(Predictor, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_otherwise(trained, question)
    assert not Path("scores.json").exists()
    assert not Path("kept").exists()  # whole or absent
    evaluate_otherwise(trained, question)
    assert len(asked) == 4 + 2  # three of five images were counted before
    assert (Path("scores.json").read_bytes(), contents(Path("kept"))) == expected
    assert not any(path.is_file() for path in Path(".gald/questions").rglob("*"))


def test_what_a_stopped_question_left_goes_once_the_code_has_changed(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> set[Path]:
        return {path.parent for path in Path(".gald/questions").rglob("*.counts")}

    with monkeypatch.context() as stopped:
        stopped.setattr(Predictor, "__call__", Mock(side_effect=KeyboardInterrupt))
        for name in ("multi_scale", "sliding"):
            with pytest.raises(KeyboardInterrupt):
                evaluate_otherwise(trained, Question(protocol=name))
    before = left()
    assert len(before) == 2
    evaluate_otherwise(trained, Question(protocol="whole"))
    assert left() == before  # the same commands would go on
    monkeypatch.setattr("gald.provenance.code_digest", lambda: "c" * 64)
    held = next(path.parent.name for path in before)
    with locking.held(f"questions/{trained.name}/{held}", wait_s=0):  # of a process that goes on with the code it has
        evaluate_otherwise(trained, Question(protocol="whole"))
        assert left() == before
    evaluate_otherwise(trained, Question(protocol="whole"))
    assert not left()


def test_counts_alone_do_not_stand_for_masks(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr("gald.commands.evaluation.CountTable.of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate_otherwise(trained, Question(protocol="sliding"))
    evaluate_otherwise(trained, Question(protocol="sliding", masks=Path("kept")))
    assert len(contents(Path("kept"))) == 2 * 5


def test_photographs_that_changed_are_predicted_again(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question(images=Path("images"), masks=Path("kept"))
    for index in range(2):
        files.write_bytes(Path("images") / f"{index}.png", png(np.full((40, 52, 3), 60 * index, np.uint8)))
    real, asked = Predictor.__call__, []

    def stopping(self: Predictor, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        asked.append(int(image[0, 0, 0]))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(self, image, size)

    monkeypatch.setattr(Predictor, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_otherwise(trained, question)
    files.write_bytes(Path("images/0.png"), png(np.full((40, 53, 3), 200, np.uint8)))
    evaluate_otherwise(trained, question)
    assert asked == [0, 60, 200, 60]
    with Image.open("kept/ids/0.png") as mask:
        assert mask.size == (53, 40)


def test_a_kill_between_archive_and_folder_leaves_a_command_that_goes_on(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_bytes(Path("images/ADE_test_00000001.png"), png(np.full((40, 52, 3), 9, np.uint8)))
    spec = load_spec("ade20k")
    monkeypatch.setattr("gald.commands.evaluation.load_spec", lambda *_: spec)
    question = Question(images=Path("images"), masks=Path("kept"), submission=Path("handed-in.zip"))

    class KilledBehind:
        """Writes once, whichever of the two comes first."""

        def __getattr__(self, name: str) -> Any:
            return getattr(files, name)

        def write_bytes(self, path: Path, content: bytes) -> None:
            files.write_bytes(path, content)
            if path == question.submission:
                raise KeyboardInterrupt

        @contextmanager
        def replaced_folder(self, path: Path) -> Iterator[Path]:
            with files.replaced_folder(path) as folder:
                yield folder
            raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("gald.commands._evaluation_masks.files", KilledBehind())
        with pytest.raises(KeyboardInterrupt):
            evaluate_otherwise(trained, question)
    evaluate_otherwise(trained, question)
    assert len(contents(Path("kept"))) == 2
    assert zipfile.is_zipfile("handed-in.zip")
