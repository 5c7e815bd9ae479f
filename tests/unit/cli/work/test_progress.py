"""The progress bar, on a stderr that is no terminal."""

import pytest

from semel.cli.work.progress import progress_line
from semel.values.job import Counts


def shown(capsys: pytest.CaptureFixture[str], *states: tuple[Counts, int | None], total: int | None = None) -> str:
    """The bar after these states; nothing goes to stdout."""
    with progress_line("fake on cpu", total=total) as line:
        for counts, whole in states:
            line.show(counts, total=whole)
    written = capsys.readouterr()
    assert written.out == ""
    return written.err


def test_the_final_state_stays(capsys: pytest.CaptureFixture[str]) -> None:
    err = shown(capsys, (Counts(hit=1, computed=1), 4), (Counts(hit=3, computed=1), 4), total=4)
    assert "fake on cpu" in err
    assert "4/4" in err
    assert "75% hits" in err


def test_an_unknown_total_is_a_question_mark(capsys: pytest.CaptureFixture[str]) -> None:
    assert "2/?" in shown(capsys, (Counts(computed=2), None))


def test_failed_texts_are_done_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "3/5" in shown(capsys, (Counts(computed=1, failed=2), 5))


def test_before_the_first_text_there_is_no_share_of_hits(capsys: pytest.CaptureFixture[str]) -> None:
    err = shown(capsys, (Counts(), 5))
    assert "0/5" in err
    assert "hits" not in err


def test_the_bar_is_drawn_also_when_the_block_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def send_until_ctrl_c() -> None:
        with progress_line("sending texts") as line:
            line.show(Counts(computed=7), total=None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send_until_ctrl_c()
    assert "7/?" in capsys.readouterr().err
