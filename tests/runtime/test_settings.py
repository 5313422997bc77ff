"""What is passed for a setting of the train block is judged as the compiler judges what stands there."""

from __future__ import annotations

import click
import pytest

from nnc.compiler.elaborate.training.settings import NORMALIZE, SETTINGS
from nnc.runtime.cli.train import train
from nnc.runtime.cli.tune import tune
from nnc.runtime.data.normalize import KINDS
from nnc.runtime.settings import LEAST


@pytest.mark.parametrize("name", LEAST)
def test_the_least_value_is_the_same_everywhere(name: str) -> None:
    assert LEAST[name] == SETTINGS[name].low
    for option in train.params:
        if option.name == name and isinstance(option.type, click.IntRange):
            assert option.type.min == LEAST[name]


def test_every_setting_that_a_command_takes_is_one_of_the_train_block() -> None:
    taken = {p.name for p in (*train.params, *tune.params)} & SETTINGS.keys()
    assert taken - {"data"} == LEAST.keys()


def test_every_way_to_normalize_is_known_to_both() -> None:
    assert KINDS.keys() == {*NORMALIZE}
