"""People in the loop: tasks, answers, those who answer without being people, and what the answers add up to."""
