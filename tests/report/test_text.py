"""The page's tables as Markdown."""

import json

from perceptkit.report.run_folder import read_run
from perceptkit.report.tables import summary_table
from perceptkit.report.text import summary
from tests.report.fake_routing import make_routed_run
from tests.report.fake_run import make_run
from tests.report.test_adaptation_section import SPOTTUNE, STATIC


def test_a_run_that_neither_routes_nor_adapts_is_one_table(tmp_path):
    path = make_run(tmp_path / "run", "hard")
    assert summary([path]) == summary_table([path])


def test_of_a_router_its_rivals_follow(tmp_path):
    path = make_routed_run(tmp_path / "run")
    text = summary([path])
    assert text.startswith(summary_table([path]))
    table = text.partition("### Which blocks run")[2]
    rules = {row.title for row in read_run(path).routing.rows}
    assert len(rules) > 2 and all(f"| {rule}" in table or f"**{rule}**" in table for rule in rules)


def test_of_an_adapted_run_both_domains_and_what_is_stored(tmp_path):
    path = make_run(tmp_path / "run", "hard", tasks=("seg",))
    (path / "adaptation.json").write_text(json.dumps(SPOTTUNE))
    text = summary([path])
    assert "Adapted from a base by spottune. The domain stores 1.50 MB, 0.75x the base's trunk." in text
    new, old = text.partition("### What was adapted")[2].split("### The old domain")
    assert "always tuned" in new and "0.400" in new
    assert "| **seg**" in old and "0.450" in old and "| the base's trunk" in old


def test_without_ablations_the_new_domain_is_in_the_first_table_alone(tmp_path):
    path = make_run(tmp_path / "run", "hard", tasks=("seg",))
    (path / "adaptation.json").write_text(json.dumps(STATIC))
    text = summary([path])
    assert "this run" not in text and "by taps" in text and "| stored" in text
