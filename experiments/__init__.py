"""One file a job: thin Hydra apps that compose the library. Nothing in `aaca` imports them."""
