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


def test_the_share_of_hits_is_complete_only_if_all_were_hits(capsys: pytest.CaptureFixture[str]) -> None:
    assert "99% hits" in shown(capsys, (Counts(hit=9999, computed=1), 10_000))
    assert "100% hits" in shown(capsys, (Counts(hit=10_000), 10_000))


def test_texts_in_hand_are_done_and_no_hits(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line("fake on cpu", total=10) as line:
        line.show(Counts(hit=2, computed=2), total=10, in_hand=3)
    err = capsys.readouterr().err
    assert "7/10" in err
    assert "50% hits" in err


def test_what_the_first_text_waits_for_is_said_until_then(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line("fake on cpu") as line:
        line.waits_for("the model may be loading")
    assert "the model may be loading" in capsys.readouterr().err
    with progress_line("fake on cpu") as line:
        line.waits_for("the model may be loading")
        line.show(Counts(computed=1), total=1)
    assert "loading" not in capsys.readouterr().err


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
