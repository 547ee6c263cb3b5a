"""docs/plan.md has the tables that its command writes."""

from benchmarks.plan.tables import PAGE, TABLES, filled


def test_the_page_is_what_the_command_writes():
    text = PAGE.read_text()
    assert all(f"<!-- {name} -->\n| " in text for name in TABLES)
    assert filled(text) == text, "python -m benchmarks.plan.tables writes it anew"
