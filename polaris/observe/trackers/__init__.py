"""Trackers: hooks of ours that send every record to a service or its files; `metrics.jsonl` stays the source of truth."""
