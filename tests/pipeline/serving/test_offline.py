"""Files from a bundle in this process; tests/jobs/test_generate.py has the command line."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.bundle.request import SynthesisRequest
from model.bundle.synthesis import Piece
from pipeline.serving.offline import make_file, open_synthesizer
from tests.factories.bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def test_a_chapter_is_taken(bundle: Path) -> None:
    chapter = "The ferry leaves at seven, and nobody waits. " * 2000
    request = SynthesisRequest(description="x", transcript=chapter)
    assert len(open_synthesizer(bundle).prepare(request).parts) > 200


def test_a_long_file_is_written_as_it_is_made_in_flat_memory(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer, second = open_synthesizer(bundle), torch.zeros(1, 16_000)
    num_pieces, sizes = 0, []

    def pieces(*_: object) -> Iterator[Piece]:
        for index in range(num_pieces):
            sizes.append(max((path.stat().st_size for path in tmp_path.iterdir()), default=0))
            yield Piece(second, is_last=index == num_pieces - 1)

    def peak_bytes() -> int:
        tracemalloc.start()
        request = SynthesisRequest(description="rain")
        made = make_file(synthesizer, request, tmp_path / "x.wav")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.duration_s == num_pieces
        (tmp_path / "x.wav").unlink()
        return peak

    monkeypatch.setattr(synthesizer, "pieces", pieces)
    num_pieces = 20
    peak_bytes()  # the first file imports what it needs
    short = peak_bytes()
    sizes, num_pieces = [], 1000
    assert peak_bytes() < short + 1_000_000 < 32_000 * num_pieces
    assert sizes == sorted(sizes)
    assert sizes[-1] > 0.9 * 32_000 * num_pieces
