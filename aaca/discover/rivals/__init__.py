"""Other ways to find out why a classifier fails, without people: the role of the `discovery` config group."""
