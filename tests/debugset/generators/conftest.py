"""The toy pipeline, loaded once."""

import pytest


@pytest.fixture(scope="session")
def pipeline(pipeline_folder):
    """Not to be changed by a test."""
    from tests.diffusion_toys import toy_diffusion

    return toy_diffusion(pipeline_folder).load()
