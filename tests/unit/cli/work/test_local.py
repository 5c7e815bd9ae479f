"""A pipeline in this process, on the cache of the settings."""

import numpy as np
import pytest

from semel.cli.work.local import local
from semel.errors import BackendError, BadInputError, ModelLoadError, UnknownModelError
from semel.settings import load_settings


def test_what_was_computed_is_a_hit_when_it_is_opened_again() -> None:
    settings = load_settings()
    runs = []
    for _ in range(2):
        with local(settings, device="auto") as here:
            runs.append(here.pipeline.embed(here.space("fake", ""), ["one", "two"]))
    first, again = runs
    assert [outcome.value for outcome in first.outcomes] == ["computed"] * 2
    assert [outcome.value for outcome in again.outcomes] == ["hit"] * 2
    np.testing.assert_array_equal(first.vectors, again.vectors)


def test_a_prompt_has_a_space_of_its_own() -> None:
    with local(load_settings(), device="auto") as here:
        plain, query = here.space("prompted", ""), here.space("prompted", "query")
    assert (plain.prompt_name, query.prompt_name) == ("", "query")
    assert plain.fingerprint != query.fingerprint


def test_an_unknown_prompt_is_named_with_those_that_exist() -> None:
    with local(load_settings(), device="auto") as here:
        with pytest.raises(BadInputError, match=r"model 'prompted' has no prompt 'q' \(prompts: query, document\)"):
            here.space("prompted", "q")
        with pytest.raises(BadInputError, match=r"model 'fake' has no prompt 'q' \(prompts: none\)"):
            here.space("fake", "q")


def test_models_that_are_unknown_or_have_no_files_are_refused() -> None:
    models = {"absent": {"source": "/nowhere/at/all"}}
    with local(load_settings(models=models), device="auto") as here:
        with pytest.raises(UnknownModelError):
            here.space("nope", "")
        with pytest.raises(ModelLoadError):
            here.space("absent", "")


def test_tokens_are_counted_with_the_prompt_and_up_to_the_limit() -> None:
    with local(load_settings(), device="auto") as here:
        assert here.count_tokens(here.space("fake", ""), ["two words", "w " * 50]) == [(2, False), (20, True)]
        assert here.count_tokens(here.space("prompted", "query"), ["two words"]) == [(3, False)]


def test_nothing_runs_on_after_the_block() -> None:
    with local(load_settings(), device="auto") as here:
        space = here.space("fake", "")
    with pytest.raises(BackendError):
        here.pipeline.embed(space, ["too late"])
