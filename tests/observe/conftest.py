import pytest
from hostile import HOSTILE
from recipe_run import recipe_run

from polaris.config.recipe import StageConfig
from polaris.config.schema import RunConfig

RECIPE = RunConfig(name="recipe", stage=tuple(StageConfig(steps=steps) for steps in (20, 12, 8)))


@pytest.fixture(scope="session")
def recipe_folder(tmp_path_factory):
    """A run through three stages whose rollouts are hostile. Tests do not change it."""
    return recipe_run(tmp_path_factory.mktemp("runs") / "recipe", RECIPE, texts=HOSTILE)
