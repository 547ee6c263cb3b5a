"""What the plan's formulas rest on: one layer traced, peaks measured, published figures, and the tables of docs/plan.md."""
