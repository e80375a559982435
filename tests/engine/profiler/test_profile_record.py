import json
from dataclasses import replace

import numpy as np
import pytest
from made_profiles import ceilings, profile, rank, rate, stage

from engine.profiler.record import Rate
from engine.profiler.record_json import read_profile, write_profile
from loaders.errors import FeedrateError


def test_a_rates_interval_is_that_of_medians_of_rounds_drawn_again():
    rounds = (100.0, 103.0, 99.0, 101.0, 140.0)
    drawn = np.random.default_rng(5).choice(rounds, size=(20_000, 5))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    assert Rate(rounds).interval == (pytest.approx(low), pytest.approx(high))
    assert Rate((7.0,)).interval == (7.0, 7.0)


def test_a_profile_comes_back_from_its_file(tmp_path):
    made = profile(
        ceilings(1000, 400, 390, loader={1: rate(200), 2: rate(400)}, cold=rate(50), notes=("so it is",)),
        rank(0, stages=[stage("read"), stage("decode", note="opaque", wall_us=None)]),
        rank(1),
    )
    write_profile(tmp_path / "deep" / "report.json", made)
    assert read_profile(tmp_path / "deep" / "report.json") == made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("ranks"), "ranks"),
        (lambda content: content.update(ceilings=[]), "ceilings is []: object"),
        (lambda content: content["ceilings"].update(more=1), "ceilings: fields more"),
        (lambda content: content["ceilings"]["step"].update(rounds="fast"), "step.rounds is 'fast'"),
        (lambda content: content["ranks"][0].update(own_us=True), "ranks[0].own_us is True: float"),
        (lambda content: content["verdict"].update(side="moon"), "verdict.side is 'moon'"),
        (lambda content: content["ceilings"]["loader"].update(two={"rounds": [1]}), "invalid literal"),
        (lambda content: content.update(schema_version=1), "schema version 1"),
    ],
)
def test_a_report_that_is_none_is_refused_with_the_place(change, message, tmp_path):
    path = tmp_path / "report.json"
    write_profile(path, profile(ceilings(1000, 400, 390)))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(FeedrateError) as caught:
        read_profile(path)
    assert message in str(caught.value)


def test_what_is_no_number_is_never_written(tmp_path):
    bad = replace(ceilings(1000, 400, 390), data_wait_share=float("nan"))
    with pytest.raises(ValueError):
        write_profile(tmp_path / "report.json", profile(bad))
    assert not (tmp_path / "report.json").exists()
