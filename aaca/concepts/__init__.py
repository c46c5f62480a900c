"""What a concept is: concept sets, the currency between those who find what is wrong and those who repair it."""
