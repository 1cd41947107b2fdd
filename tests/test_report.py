"""What pages show of the records: tables, glue, claims."""

import pytest
from made_records import put

from tl_helpers import report, results


def test_tables_and_glue_prefer_full_and_say_otherwise(package_records):
    put(package_records, scale="laptop", test_accuracy=0.5)
    assert report.glue("demo") == {"demo/a/test_accuracy": "0.500 (1 run), recorded at laptop scale"}
    for seed, value in enumerate((0.6, 0.62, 0.64)):
        put(package_records, seed=seed, test_accuracy=value)
    assert report.glue("demo") == {"demo/a/test_accuracy": "0.620 ± 0.020 (3 seeds)"}
    shown = report.table("demo")
    assert "recorded (full, 3 seeds)" in repr(shown) and "0.620 ± 0.020\n" in repr(shown) + "\n"
    assert "standard deviation" in repr(shown) and "this run" not in repr(shown), "nothing was run here"
    assert '<th scope="row">a</th>' in shown._repr_html_()


def test_a_table_tells_the_seeds_where_arms_differ_in_them(package_records):
    for seed, value in enumerate((0.6, 0.62)):
        put(package_records, seed=seed, test_accuracy=value)
    put(package_records, arm="b", pair="small", test_accuracy=0.5)
    lines = repr(report.table("demo", pair="network")).splitlines()
    assert lines[1].split("  ")[0] == "arm" and "network" in lines[1] and "seed" not in lines[1]
    assert "0.610 ± 0.014 (2 seeds)" in lines[2] and "0.500 (1 run)" in lines[3]


def test_a_table_heads_metrics_in_words(package_records):
    put(package_records, test_accuracy=0.5, val_accuracy=0.6, other_size_val_accuracy=0.4, test_r2=0.9, epochs_run=3)
    header = report.table("demo", ["val_accuracy", "other_size_val_accuracy", "test_r2", "epochs_run"]).header
    words = ["validation accuracy", "validation accuracy at the other size", "test R²", "epochs run"]
    assert header == ["arm", *(f"{name}: recorded (full, 1 run)" for name in words)]
    assert not any("_" in name for name in report.HEADINGS.values())


def test_rows_of_rates_are_in_the_order_of_the_rates_and_written_out(package_records):
    for arm, rate in (("a", "0.001"), ("b", "0.001"), ("b", "1e-05"), ("a", "3e-05")):
        put(package_records, arm=arm, pair=rate, test_accuracy=0.5)
    shown = [row[:2] for row in report.table("demo", pair="rate").rows]
    assert shown == [["a", "0.00003"], ["a", "0.001"], ["b", "0.00001"], ["b", "0.001"]]
    put(package_records, arm="c", pair="none", test_accuracy=0.5)
    shown = [row[:2] for row in report.table("demo", pair="rate").rows]
    assert shown[0] == ["a", "0.001"] and shown[-1] == ["c", "none"], "as recorded, where a pair is no number"
    assert [report.decimal(n) for n in (3e-05, "0.1", 32, "1e-3")] == ["0.00003", "0.1", "32", "0.001"]


def test_a_page_says_what_of_its_plan_is_missing_and_then_nothing(package_records):
    plan = {"10": (0, 1), "100": (0, 1), "all": (0,)}
    assert report.missing("demo", plan, ("a", "b")) == "nothing; not yet: 10, 100, all"
    for pair, arm, seed in (("10", "a", 0), ("10", "b", 0), ("10", "a", 1), ("10", "b", 1), ("100", "a", 0)):
        put(package_records, pair=pair, arm=arm, seed=seed, test_accuracy=0.5)
    assert report.missing("demo", plan, ("a", "b")) == "10 (2 of 2 seeds); not yet: 100, all"
    put(package_records, pair="100", arm="b", seed=0, test_accuracy=0.5)
    put(package_records, pair="all", arm="a", seed=0, scale="laptop", test_accuracy=0.5)
    assert report.missing("demo", plan, ("a", "b")) == "10 (2 of 2 seeds); 100 (1 of 2 seeds); not yet: all"
    assert report.missing("demo", {"10": (0, 1)}, ("a", "b")) == ""


def test_the_time_of_the_runs_is_added_up_by_machine(package_records):
    assert report.spent("demo") == "no time yet"
    for seconds, machine, seed in ((30, "fast", 0), (3600, "slow", 1), (3600, "slow", 2), (30, "fast", 3)):
        about = {"seconds": seconds, "device": {"name": machine, "cores": 2}}
        put(package_records, seed=seed, arm=machine, about=about)
    put(package_records, seed=9, scale="quick", about={"seconds": 1e9})
    assert report.spent("demo") == "1 min (fast, 2 cores); 2.0 h (slow, 2 cores)"


def test_a_lead_is_that_of_the_arm_best_on_validation(package_records, scratch):
    assert str(report.lead("demo", ("a", "b"), "c")) == "not recorded yet"
    for seed in (0, 1):
        put(package_records, arm="a", seed=seed, val_accuracy=0.6, test_accuracy=0.9)
        put(package_records, arm="b", seed=seed, val_accuracy=0.7, test_accuracy=0.6 + 0.1 * seed)
        put(package_records, arm="c", seed=seed, val_accuracy=0.9, test_accuracy=0.5)
    put(package_records, arm="c", seed=2, val_accuracy=0.9, test_accuracy=0.1)
    found = report.lead("demo", ("a", "b"), "c")
    assert found.arm == "b" and str(found) == "+15.0 points (+10.0 to +20.0, 2 seeds)"


def test_a_tables_cell_may_be_a_link_and_names_stay_text():
    table = report.Table(["who"], [[report.Link("a & b", 'https://example.org/?a="b"')], ["<i>0.1 ± 0.2</i>"]])
    assert repr(table).splitlines() == ["who", "a & b", "<i>0.1 ± 0.2</i>"]
    shown = table._repr_html_()
    assert '<a href="https://example.org/?a=&quot;b&quot;">a &amp; b</a>' in shown
    assert "&lt;i&gt;0.1&nbsp;±&nbsp;0.2&lt;/i&gt;" in shown


def test_a_table_says_what_its_records_were_made_from(package_records):
    put(package_records, test_accuracy=0.5)
    assert report.table("demo").caption == "Experiment demo, recorded on generated data; cpu, 2 cores."
    for scale in ("full", "quick"):
        about = {"data": {"name": "cifar10", "copy": "rebuilt"}, "weights": {"name": "imagenet"}}
        put(package_records, experiment=scale, scale=scale, test_accuracy=0.5, **about)
        recorded = f"Experiment {scale}, recorded on cifar10 (rebuilt copy); weights: imagenet; cpu, 2 cores."
        assert report.table(scale).caption == recorded
        said = report.glue(scale)[f"{scale}/a/test_accuracy"]
        assert said == "0.500 (1 run)" + ("" if scale == "full" else ", recorded at quick scale")


def test_the_origin_of_records_is_data_and_scale():
    assert report.origin([{"data": {"name": "cifar10"}, "scale": "full"}]) == "cifar10, full scale"
    assert report.origin([{"data": None, "scale": "quick"}]) == "quick scale"
    assert report.origin([]) == "not recorded yet"


def test_what_is_shown_is_recorded_or_else_of_this_run(package_records, scratch):
    assert report.shown("demo") == [] and report.origin("demo") == "not recorded yet" and report.by_pair("demo") == {}
    results.Run("demo", arm="a", seed=0).finish({"test_accuracy": 0.5})
    assert report.shown("demo") == results.finished and report.by_pair("demo") == {None: {"a": [0.5]}}
    for seed, value in enumerate((0.6, 0.7)):
        put(package_records, pair="small", seed=seed, test_accuracy=value)
    put(package_records, arm="b", pair="small", seed=1, test_accuracy=0.9)
    assert [r["scale"] for r in report.shown("demo")] == ["full"] * 3
    assert report.by_pair("demo") == {"small": {"a": [0.7], "b": [0.9]}}, "only seeds that all arms have"


def test_an_experiment_without_records_says_so(package_records, scratch):
    assert "not recorded yet" in repr(report.table("nothing"))
    assert report.arms("nothing") == {}


def test_a_spread_has_two_digits_and_the_mean_as_many_decimals():
    assert report.show([0.1, 0.2, 0.3]) == "0.200 ± 0.100 (3 seeds)"
    assert report.show([0.16, 0.1811], "risk") == "0.171 ± 0.015 (2 seeds)"
    assert report.show([146, 150], "width_pixels") == "148.0 ± 2.8 (2 seeds)"
    assert report.show([12_000, 15_000], "seconds") == "13,500 ± 2,121 (2 seeds)"
    assert report.show([37_957, 37_957], "weights_moved") == "37,957 (all 2 seeds)"
    assert report.show([0.0, 0.0], "moved_ratio") == "0 (all 2 seeds)"
    assert report.show([0.5, 0.5]) == "0.500 ± 0.000 (2 seeds)"


def test_pairs_are_kept_apart(package_records):
    put(package_records, pair="10", test_accuracy=0.1)
    put(package_records, pair="100", test_accuracy=0.2)
    assert set(report.glue("demo")) == {"demo/10/a/test_accuracy", "demo/100/a/test_accuracy"}
    assert report.arms("demo", pair="100") == {"a": [0.2]}


def test_arms_come_from_this_run_where_the_records_hold_none(package_records, scratch):
    results.Run("demo", arm="b", pair="new", seed=0).finish({"test_accuracy": 0.5})
    put(package_records, pair="old", test_accuracy=0.1)
    assert report.arms("demo", pair="old") == {"a": [0.1]} and report.arms("demo", pair="new") == {"b": [0.5]}
    assert report.arms("demo", pair="old", fresh=True) == {}


def test_seeds_that_an_interrupted_recording_left_incomplete_are_left_out():
    of = lambda arm, *seeds: [{"pair": None, "arm": arm, "seed": seed} for seed in seeds]  # noqa: E731
    kept = report.whole_seeds([*of("plain", 0, 1, 2), *of("frozen", 0, 1)])
    assert kept == [*of("plain", 0, 1), *of("frozen", 0, 1)]
    assert report.whole_seeds([]) == []


def test_differences_are_taken_within_the_seeds_that_have_the_metric(package_records):
    for arm, seeds in (("a", (0, 1)), ("b", (0, 1, 2))):
        for seed in seeds:
            reached = {} if (arm, seed) == ("a", 0) else {"seconds_to_mark": float(seed)}
            put(package_records, arm=arm, seed=seed, test_accuracy=0.5, **reached)
    assert report.by_pair("demo", "seconds_to_mark") == {None: {"a": [1.0], "b": [1.0]}}


def test_an_arm_of_several_pairs_is_not_shown_as_one(package_records):
    put(package_records, pair="10", test_accuracy=0.1)
    put(package_records, pair="100", test_accuracy=0.2)
    with pytest.raises(ValueError, match="pair must name one of those of demo"):
        report.arms("demo")


def test_claims_are_looked_up_by_key():
    assert report.claim("vgg16-cifar10-accuracy") == "0.8250"
    with pytest.raises(KeyError, match="no claim 'nope'. There are: vgg16"):
        report.claim("nope")


def test_shares_are_known_by_whole_words():
    shares = ("accuracy", "val_top1", "val_top5", "test_f1", "test_r2", "share_of_width", "probability_lost")
    assert all(report.is_share(name) for name in shares)
    assert not any(report.is_share(name) for name in ("stopped_epoch", "calibration_error", "test_loss", "shares"))
    assert report.show([12.0], "stopped_epoch") == "12 (1 run)"
    assert report.show([0.7114, 0.7146], "test_f1") == "0.713 ± 0.002 (2 seeds)"


@pytest.mark.parametrize(
    "value, shown",
    [(999.7, "1,000"), (9999.6, "10,000"), (999.4, "999"), (12.345, "12.3"), (-1234.5, "-1,234"), (0.5, "0.5")],
)
def test_large_numbers_are_written_out(value, shown):
    assert report.show([value], "risk") == f"{shown} (1 run)"
