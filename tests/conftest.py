"""What several folders of tests share and is not cheap to make."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory) -> Path:
    """The toy pipeline as a folder; tests copy it before they change it."""
    from tests.diffusion_toys import save_toy_pipeline  # seconds: only where it is used

    return save_toy_pipeline(tmp_path_factory.mktemp("toy") / "pipeline")
