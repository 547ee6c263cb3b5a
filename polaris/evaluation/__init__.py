"""`polaris eval`: problems, samples from an engine or a server, verdicts, and scores with intervals; it stands on `rollout` and `reward`
and needs no trainer, and `recipe` ends with it."""
