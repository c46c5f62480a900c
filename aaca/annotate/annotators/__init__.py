"""Who answers: people's answers from a file, or stand-ins for people; one a file."""
