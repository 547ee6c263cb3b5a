"""Prompts to groups of scored rollouts: requests, engine, grader and the guards over both; it stands on `data`, `reward`, `rollout` and
`sync`, and the step in `run` hands its groups to `learn`."""
