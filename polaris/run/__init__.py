"""The training loop, from checks and setup to step, loop and resume, and the session of a command; it joins `sampling` and `learn`, and
`recipe` runs the loop stage by stage."""
