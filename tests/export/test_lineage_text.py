import json
from dataclasses import replace

import pytest

from clipcov_assets.export.lineage_text import (
    Fault,
    Held,
    Lineage,
    Node,
    Place,
    Reach,
    lineage_markdown,
    lineage_text,
    lineage_values,
    reach_text,
    reach_values,
)

NOW = {"project": "1.0", "CLIPCOV_SCALE": "demo"}


def a_lineage(*nodes):
    return Lineage(nodes[0].place, {node.place: node for node in nodes}, NOW)


def a_pool(crawls, faulty=()):
    """A pool of crawls, each with raw pairs and embeddings by one proxy; and what crawls have a fault."""
    proxy = Node(Place("proxy_checkpoint", None, "p"), facts={"sha256": "f" * 64})
    raw = [Node(Place("raw_pairs", f"crawl-{number}", f"r{number}")) for number in range(crawls)]
    embedded = [
        Node(
            Place("embeddings", one.place.partition, "e"),
            inputs=(one.place, proxy.place),
            faults=(Fault("changed", "has changed since"),) if number in faulty else (),
        )
        for number, one in enumerate(raw)
    ]
    inputs = tuple(node.place for both in zip(raw, embedded, strict=True) for node in both)
    pool = Node(Place("pool", f"crawl-{crawls - 1}", "v1"), code_version="2", run="0123456789", inputs=inputs)
    return a_lineage(replace(pool, facts={"pairs": "12345.0"}), *raw, *embedded, proxy)


def test_a_tree_names_everything_once_and_refers_to_it_after_that():
    assert lineage_text(a_pool(2)).splitlines()[2:] == [
        "",
        "                         data version  code  run       Lance",
        "pool crawl-1             v1            2     01234567         12,345 pairs",
        "├─ raw_pairs crawl-0     r0",
        "├─ embeddings crawl-0    e",
        "│  ├─ raw_pairs crawl-0 (see above)",
        "│  └─ proxy_checkpoint   p                                    sha256 ffffffffffff",
        "├─ raw_pairs crawl-1     r1",
        "└─ embeddings crawl-1    e",
        "   ├─ raw_pairs crawl-1 (see above)",
        "   └─ proxy_checkpoint (see above)",
        "",
        "all in order: 6 materializations",
    ]


def test_a_year_of_crawls_is_folded():
    text = lineage_text(a_pool(365))
    assert "├─ ... and 363 more crawls, crawl-1 to crawl-363, all in order\n" in text
    assert len(text.splitlines()) < 20


def test_a_fault_is_never_folded_away_alone():
    text = lineage_text(a_pool(365, faulty=[200]))
    assert "... and 199 more crawls, crawl-1 to crawl-199, all in order" in text
    assert "embeddings crawl-200" in text
    assert "! has changed since" in text
    assert "1 fault in 732 materializations" in text


def test_many_faults_are_counted():
    text = lineage_text(a_pool(365, faulty=range(100, 300)))
    assert text.count("! has changed since") == 4
    assert "of them with faults" in text
    assert "200 faults in 732 materializations" in text


def test_code_that_has_changed_is_said_once_for_an_asset():
    lineage = a_pool(3)
    nodes = {place: replace(node, code_version="1", code_now="1") for place, node in lineage.nodes.items()}
    changed = {
        place: replace(node, code_now="2") if place.asset == "embeddings" else node for place, node in nodes.items()
    }
    text = lineage_text(replace(lineage, nodes=changed))
    assert text.endswith("the code of embeddings has changed since: 1 then, 2 now\n")
    assert text.count("has changed since") == 1


def test_what_results_were_made_with_is_said_and_what_is_not_recorded():
    lineage = a_pool(2)
    nodes = dict(lineage.nodes)
    nodes[lineage.root] = replace(nodes[lineage.root], configuration={"project": "0.9", "CLIPCOV_SCALE": "tiny"})
    text = lineage_text(replace(lineage, nodes=nodes))
    assert "made with project 0.9, CLIPCOV_SCALE=tiny: 1 materialization\n" in text
    assert "not recorded: 5 materializations; now it would be project 1.0, CLIPCOV_SCALE=demo\n" in text


def test_markdown_is_a_short_list():
    lines = lineage_markdown(a_pool(365, faulty=[200])).splitlines()
    assert lines[0] == "- **pool** crawl-364: data version v1, code 2, run 01234567, 12,345 pairs"
    assert "    - **proxy_checkpoint**: data version p, sha256 ffffffffffff" in lines
    assert "    - **fault:** has changed since" in lines
    assert len(lines) < 20


def test_values_hold_every_node():
    values = json.loads(json.dumps(lineage_values(a_pool(365, faulty=[200]))))
    assert values["root"] == {"asset": "pool", "partition": "crawl-364", "data_version": "v1"}
    assert (len(values["nodes"]), values["in_order"], len(values["faults"])) == (732, False, 1)
    assert values["nodes"][0]["asset"] == "pool"
    assert len(values["nodes"][0]["inputs"]) == 730


@pytest.mark.parametrize(
    "name", ["crawl\x1b[31m", "<script>alert(1)</script>", "[a](http://x)", "a`b|c*d\nnext", "x" * 500]
)
def test_names_are_shown_and_never_acted_on(name):
    place = Place("raw_pairs", name, name)
    node = Node(place, code_version=name, run=name, facts={"source": name}, faults=(Fault("gone", name),))
    lineage = a_lineage(node)
    reach = Reach("pair", name, (name,), (Held(place, "pairs", name, 1, name),), {"pairs": 1})
    text, markdown = lineage_text(lineage), lineage_markdown(lineage)
    for shown in (text, markdown, reach_text(reach)):
        assert "\x1b" not in shown
        assert max(map(len, shown.splitlines())) < 1_000
    assert "<script" not in markdown
    assert "[a](" not in markdown
    assert "\nnext" not in text + markdown
    assert lineage_values(lineage)["nodes"][0]["partition"] == name


def results(partitions):
    return [
        Held(Place(f"clipcov_{kind}", f"crawl-{number}|f20", "v"), kind, "run", 3, "1000")
        for kind in ("subset", "scorecard")
        for number in range(partitions)
    ]


def test_what_holds_a_crawl_is_a_line_for_each_partition():
    found = Reach("crawl", "crawl-0", (), tuple(results(2)), {"subset": 4, "export": 0, "scorecard": 2})
    assert reach_text(found).splitlines() == [
        "crawl crawl-0 is in 2 of 4 subsets, 0 of 0 exports, 2 of 2 scorecards",
        "",
        "                     subset  scorecard  of pairs",
        "clipcov crawl-0|f20       3          3     1,000",
        "clipcov crawl-1|f20       3          3     1,000",
    ]
    values = json.loads(json.dumps(reach_values(found)))
    assert (values["crawl"], values["in_order"], len(values["held"])) == ("crawl-0", True, 4)


def test_many_partitions_are_folded_and_unknown_ones_counted():
    found = results(365)
    fault = Fault("gone", "version 1 is gone")
    found[100] = replace(found[100], pairs=None, faults=(fault,))
    text = reach_text(Reach("pair", "u1", (), tuple(found), {"subset": 365, "scorecard": 365}))
    assert text.startswith("pair u1 is in 364 of 365 subsets (1 unknown), 365 of 365 scorecards\n")
    assert "delivered by no crawl any more\n" in text
    assert "... and 357 more partitions, 1 of them unknown\n" in text
    assert text.endswith("? cannot be said:\n  version 1 is gone (1 result)\n")
