"""What people read of a run: metrics, console, trackers, kept rollouts and the report; `run`, `recipe` and `evaluation` give it the
numbers, and nothing that it does changes them."""
