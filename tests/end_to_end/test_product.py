"""A delivery is dropped into the directory and nobody clicks; then a person walks through the pages in a browser."""


def test_subsets_appear_and_nothing_is_trained_but_the_proxy(selected):
    assert selected.made("proxy_checkpoint")
    assert not selected.made("random_checkpoint", "full_checkpoint", "partial_checkpoint")


def test_every_run_succeeds_and_says_which_crawl_it_works_on(selected):
    runs = [run for run in selected.runs() if run["jobName"].startswith("__ASSET")]
    assert not {run["status"] for run in runs} & {"FAILURE", "CANCELED"}
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in runs if run["status"] == "SUCCESS"]
    assert all(one.get("clipcov/crawl") == "crawl-1" for one in tags if "dagster/partition" in one)
    assert any("random" in one.get("clipcov/method", "") for one in tags)


def test_the_daemon_says_nothing_red(selected):
    log = selected.log()
    assert "Traceback" not in log
    assert " ERROR " not in log


def test_one_job_trains_and_scores_and_the_comparison_follows(scored):
    assert scored.made("comparison") == {("comparison", "crawl-1")}
    assert not (scored.home / "var/alerts.log").exists()


def test_the_graph_shows_the_road_in_groups(page, scored, pictures):
    page.goto(f"{scored.dagster}/asset-groups")
    for group in ("1_crawls", "2_pool", "3_rankings", "4_subsets", "5_checkpoints", "6_scorecards", "7_exports"):
        page.get_by_text(group, exact=True).first.wait_for()
    page.wait_for_timeout(1_000)  # the graph moves into its place
    page.screenshot(path=pictures / "graph.png")


def test_an_asset_says_what_it_is_and_shows_its_partitions(page, scored, pictures):
    page.goto(f"{scored.dagster}/assets/clipcov_subset?view=overview")
    page.get_by_text("how far the image-text cross-covariance", exact=False).first.wait_for()
    page.goto(f"{scored.dagster}/assets/clipcov_subset?view=partitions")
    page.get_by_text("crawl-1", exact=True).first.wait_for()
    page.wait_for_timeout(1_000)
    page.screenshot(path=pictures / "partitions.png")


def test_numbers_are_plotted(page, scored, pictures):
    page.goto(f"{scored.dagster}/assets/clipcov_subset?view=overview")
    page.get_by_text("Plots", exact=True).first.click()
    page.locator("canvas").first.wait_for()
    page.get_by_text("class_coverage", exact=True).first.wait_for()
    page.wait_for_timeout(1_000)
    page.screenshot(path=pictures / "plots.png")


def test_the_comparison_speaks_first_in_words_and_leads_on(page, scored, pictures):
    page.goto(f"{scored.dagster}/assets/comparison?view=overview")
    page.get_by_text("in_words", exact=True).first.wait_for()
    page.screenshot(path=pictures / "comparison.png")
    page.goto(scored.pages)
    page.get_by_role("link", name="crawl-1", exact=True).first.click()
    page.get_by_text("How small may the subset be?").first.wait_for()
    page.screenshot(path=pictures / "report.png")


def test_the_gallery_opens_from_the_asset_and_leads_to_the_reason_of_a_pair(page, scored, pictures):
    page.goto(f"{scored.dagster}/assets/clipcov_subset?view=partitions&partition=crawl-1%7Cf20")
    link = page.locator(f'a[href^="{scored.pages}/galleries/"]').first
    link.wait_for()
    page.goto(link.get_attribute("href"))
    page.get_by_text("First picks").first.wait_for()
    page.screenshot(path=pictures / "gallery.png")
    page.locator('a[href*="pair?uid="]').first.click()
    page.get_by_text("cross-covariance", exact=False).first.wait_for()
    page.screenshot(path=pictures / "pair.png")


def test_the_launchpad_describes_every_field(page, scored, pictures):
    page.goto(f"{scored.dagster}/locations/clipcov_assets/jobs/train_and_score/playground")
    page.get_by_text("start_training", exact=False).first.wait_for()
    page.wait_for_timeout(1_000)
    page.screenshot(path=pictures / "launchpad.png")


def test_no_page_raised_an_error(page):
    assert page.complaints == []
