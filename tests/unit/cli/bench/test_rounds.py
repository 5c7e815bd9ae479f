"""Measurements that take turns."""

from semel.cli.bench.rounds import durations_s, in_rounds, new_texts, percentiles_ms


def test_all_measurements_take_turns_after_a_run_that_does_not_count() -> None:
    calls: list[str] = []
    done: list[int] = []

    def one(seconds: float) -> dict[str, float]:
        calls.append(f"one {seconds:g}")
        return {"one": float(len(calls))}

    def two(seconds: float) -> dict[str, float]:
        calls.append(f"two {seconds:g}")
        return {"two": float(len(calls)), "also": 0.0}

    found = in_rounds([one, two], seconds=8, rounds=2, done=done.append)
    assert calls == ["one 0", "two 0", "one 2", "two 2", "one 2", "two 2"]
    assert found == {"one": [3.0, 5.0], "two": [4.0, 6.0], "also": [0.0, 0.0]}
    assert done == [1, 2, 3, 4]


def test_work_is_repeated_for_its_time_and_at_least_so_often() -> None:
    assert len(durations_s(lambda: None, 0.0)) == 1
    assert len(durations_s(lambda: None, 0.0, least=5)) == 5
    assert len(durations_s(lambda: None, 0.01)) > 5


def test_no_text_comes_twice() -> None:
    texts = [*new_texts(3), *new_texts(2)]
    assert len(set(texts)) == 5


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles_ms([0.001, 0.002, 0.003], (50,), "all, ") == {"all, p50": 2.0}
