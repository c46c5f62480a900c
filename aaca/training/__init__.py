"""LightningModules, one a file, and what they train with: recipes, optimiser groups, schedules, the trainer."""
