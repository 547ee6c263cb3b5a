"""Prompt sets on disk to prompts, their pass rates and their order; it asks `reward` which answers can be graded, and `sampling`, `recipe`
and `evaluation` take prompts from it."""
