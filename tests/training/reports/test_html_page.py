"""Tables and pages as HTML."""

from __future__ import annotations

from training.reports.html_page import Section, html_page, html_table


def test_text_from_data_is_escaped() -> None:
    rows = [{"a": "<script>", "b": 0.5, "c": None}]
    body = html_table(rows, "a=<th>, b, c")
    text = html_page("<x>", "a & b", [Section("<i>", "</p>", body)])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "<title>&lt;x&gt;</title>" in text
