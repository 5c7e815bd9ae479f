"""The plan and the report in words."""

from semel.sync.report import Plan, Report


def test_a_plan_in_words() -> None:
    plan = Plan(
        known=5000, added=1204, changed=312, deleted=37, moved=5, unchanged=9, touched=2, payload_only=3, failed=1,
        chunks=1611, hits=1547, to_compute=64, seconds=4.2, notes=["note"],
    )  # fmt: skip
    assert plan.lines() == [
        "note",
        "+1,204  ~312  −37 documents (5 of them moved); 9 unchanged; 2 touched but the same; "
        "3 with other fields only; 1 cannot be read",
        "1,611 chunks to write, 96 % hits, 64 to compute, about 4.2 s",
    ]
    assert round(plan.shrinks_by, 4) == 0.0064


def test_a_rate_that_is_not_known_is_not_made_up() -> None:
    assert Plan(chunks=2, to_compute=2).lines()[-1].endswith("2 to compute, for a time that is not measured yet")
    assert Plan(chunks=2, hits=2, seconds=0.0).lines()[-1] == "2 chunks to write, 100 % hits, 0 to compute"


def test_a_report_lists_what_failed_and_counts_the_rest() -> None:
    report = Report(Plan(), "c", "m", written=3, seconds=90)
    for number in range(103):
        report.fail(f"d{number}", "why")
    lines = report.lines()
    assert lines[0].endswith("in 2 min")
    assert lines[1].startswith("103 documents are not in step")
    assert lines[2] == "  d0: why"
    assert lines[-1] == "  … and 3 more"
    assert len(report.as_json()["failures"]) == 100
