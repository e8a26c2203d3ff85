"""Every process that is named can be imported, and is given the settings and an event that ends it."""

import inspect
from importlib import import_module

import pytest

from dealeriq.processes import HOSTED


@pytest.mark.parametrize("name", HOSTED)
def test_a_process_is_a_function_of_settings_and_an_end(name: str) -> None:
    module, _, function = HOSTED[name][0].partition(":")
    host = getattr(import_module(module), function)
    assert list(inspect.signature(host).parameters) == ["settings", "stop"]
