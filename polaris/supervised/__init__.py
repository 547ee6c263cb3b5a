"""`polaris sft`: conversations to gradients, in the run folders, checkpoints and reports of training."""
