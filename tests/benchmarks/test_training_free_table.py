"""The table of rules without training, on a few images of the built-in teacher."""

from benchmarks.training_free import main


def test_every_rule_is_a_line_per_scale_with_its_evaluations_and_verdicts(tmp_path, capsys):
    small = ["--set", "sample.images=10", "--set", "sample.steps=4", "--set", "sample.guidance_scales=[2,4]"]
    rules = "[{kind: cfg-gate}, {kind: guidance-cache}]"
    main(["--output", str(tmp_path), "--rules", rules, *small, "--set", "evaluate.distance_subsets=2"])
    shown = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, _, *lines = [[cell.strip() for cell in line] for line in shown]
    assert head == ["scale", "method", "NFE", "paired error", "FD", "accuracy", "contrast shift"]
    methods = [("no guidance", "4"), ("CFG", "8"), ("CFG gate 0.5", "6"), ("CFG cache 2", "6")]
    assert [tuple(line[:3]) for line in lines] == [(scale, *method) for scale in "24" for method in methods]
    assert [line[3] for line in lines[:2]] == ["100.0%", "0.0%"]
    assert all(0 < float(line[3].rstrip("%")) < 100 for line in (*lines[2:4], *lines[6:8]))
    assert all("(" in line[4] for line in lines if line[1] != "CFG")
