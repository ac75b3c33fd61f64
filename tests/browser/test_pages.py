"""MLflow's own pages in a real browser: every link opens what it names, tables show what is there.

Needs Debian's ``chromium`` and the package ``playwright``; skipped where one of them is absent.
Screenshots are left in ``build/screenshots``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import mlflow_rnnmod
from benchmarks.logging import server
from mlflow_rnnmod.pages.markdown import artifact_page, artifacts_page, model_page, run_page
from mlflow_rnnmod.tracking.bulk import LoggedDecomposition, log_decomposition
from tests.builders import tiny_decomposition, tiny_parent, tiny_texts

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
LINK = re.compile(r"\]\((#/[^)\s]+)\)")


@dataclass(frozen=True)
class Shop:
    """A server with two decompositions and a composite of both."""

    uri: str
    first: LoggedDecomposition
    second: LoggedDecomposition
    model_id: str
    run_id: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    with server(tmp_path_factory.mktemp("shop"), workers=1) as uri:
        mlflow.set_tracking_uri(uri)
        logged = []
        labels = [f"word {i}" for i in range(24)], ["finnish", "word 1", "x|y"]
        for seed, (name, mine) in enumerate(zip(("words", "more"), labels, strict=True)):
            parent = tiny_parent("text", labels=mine, seed=seed)
            with mlflow.start_run(run_name=f"train {name}"):
                logged.append(
                    log_decomposition(tiny_decomposition(parent), registered_model_prefix=name)
                )
        first, second = logged
        uris = [first.uris["word 0"], first.uris["word 1"], second.uris["finnish"]]
        composite = mlflow_rnnmod.compose(uris)
        composite = mlflow_rnnmod.replace(composite, "word 1", second.uris["word 1"])
        texts = tiny_texts(60)
        right = [composite.labels[i % 3] for i in range(60)]
        with mlflow.start_run(run_name="compose") as run:
            info = mlflow_rnnmod.log_model(
                composite,
                name="names",
                registered_model_name="names",
                evaluate_on=(texts, right),
                evaluated_on="made-up rows",
            )
        yield Shop(uri, first, second, info.model_id, run.info.run_id)
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def fresh(browser: Any, shop: Shop) -> Iterator[Any]:
    """Opens a page of the server in a browser that was never there; leaves a picture."""
    contexts = []

    def opened(page: str, shot: str | None = None, sees: str | None = None) -> Any:
        context = browser.new_context(viewport={"width": 1500, "height": 1100})
        contexts.append(context)
        found = context.new_page()
        found.set_default_timeout(45_000)
        found.goto(f"{shop.uri}/{page}")
        if sees is not None:
            found.get_by_text(sees).first.wait_for()
        if shot is not None:
            found.wait_for_timeout(1000)
            picture(found, shot)
        return found

    yield opened
    for context in contexts:
        context.close()


def picture(page: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"))


def follow(page: Any, name: str) -> Any:
    """The page behind a link; descriptions open theirs in another tab."""
    link = page.get_by_role("link", name=name).first
    if link.get_attribute("target") == "_blank":
        with page.context.expect_page() as opened:
            link.click()
        return opened.value
    link.click()
    return page


def texts_of(shop: Shop) -> list[str]:
    """All Markdown that was written: descriptions and the index."""
    client = MlflowClient(shop.uri)
    models = client.search_logged_models([shop.first.experiment_id], max_results=50)
    runs = client.search_runs([shop.first.experiment_id])
    found = [m.tags.get("mlflow.note.content", "") for m in models]
    found += [run.data.tags.get("mlflow.note.content", "") for run in runs]
    found += [m.description or "" for m in client.search_registered_models()]
    for logged in (shop.first, shop.second):
        found.append(mlflow.artifacts.load_text(f"runs:/{logged.run_id}/rnnmod/modules.md"))
    return found


def named_by(page: str) -> str:
    """What a page has to show, from its address."""
    client, path = MlflowClient(), page.partition("?")[0].removeprefix("#/").split("/")
    if path[0] == "models":
        name = path[1].replace("%20", " ")
        return name if len(path) == 2 else f"Version {path[3]}"
    kind = path[2]
    if kind == "models":
        return "Logged models" if len(path) == 3 else client.get_logged_model(path[3]).name
    if len(path) > 4:
        return "/".join(path[5:])
    return str(client.get_run(path[3]).info.run_name)


def test_every_link_opens_what_it_names(shop: Shop, fresh: Any) -> None:
    links = sorted({link for text in texts_of(shop) for link in LINK.findall(text)})
    assert len(links) > 25
    assert all(link.endswith("?workflowType=machine_learning") for link in links)
    some = links[:: max(len(links) // 12, 1)]
    some += [x for x in links if "/artifacts" in x or "/versions/" in x][:4]
    for link in dict.fromkeys(some):
        page = fresh(link)
        wanted = named_by(link)
        if wanted == "Logged models":
            page.get_by_text("Registered models").first.wait_for()
        else:
            page.get_by_text(wanted).first.wait_for()
        assert page.get_by_text("Agent versions").count() == 0, "in the wrong mode"


def test_the_composites_page_begins_with_its_figures(shop: Shop, fresh: Any) -> None:
    model = MlflowClient(shop.uri).get_logged_model(shop.model_id)
    accuracy = {m.key: m.value for m in model.metrics}["accuracy"]
    page = fresh(model_page(model.experiment_id, shop.model_id), "composite", "Labels, worst first")
    tables = page.locator("table")
    shown = [tables.nth(i).inner_text() for i in range(tables.count())]
    figures = next(i for i, text in enumerate(shown) if "composed" in text)
    labels = next(i for i, text in enumerate(shown) if "precision" in text and "recall" in text)
    assert figures < labels
    assert f"{100 * accuracy:.1f} %" in shown[figures]
    assert "passes" in shown[figures]
    for label in ("word 0", "word 1", "finnish"):
        assert label in shown[labels]


def test_a_labels_link_leads_to_its_module(shop: Shop, fresh: Any) -> None:
    page = fresh(model_page(shop.first.experiment_id, shop.model_id), sees="Labels, worst first")
    page = follow(page, "finnish")
    page.get_by_text("Version 1").first.wait_for()
    assert "/models/more.finnish/versions/1" in page.url


def test_the_runs_description_begins_with_links(shop: Shop, fresh: Any) -> None:
    page = fresh(run_page(shop.first.experiment_id, shop.first.run_id), "run", "all, worst first")
    page = follow(page, "all, worst first")
    page.get_by_text("24 modules of one network").first.wait_for()


def test_the_index_has_blocks_of_ten(shop: Shop, fresh: Any) -> None:
    where = artifact_page(shop.first.experiment_id, shop.first.run_id, "rnnmod/modules.md")
    page = fresh(where, "index", "24 modules of one network")
    for block in ("1 to 10", "11 to 20", "21 to 24"):
        page.get_by_role("heading", name=block).first.wait_for()


def test_the_report_sorts_and_filters(shop: Shop, fresh: Any) -> None:
    where = artifact_page(shop.first.experiment_id, shop.first.run_id, "rnnmod/report.html")
    page = fresh(where)
    frame = page.frame_locator("iframe").first
    rows = frame.locator("table.sortable tbody tr")
    rows.first.wait_for()
    picture(page, "report")
    first = frame.locator("table.sortable th").first
    first.click()
    names = [rows.nth(i).locator("td").first.inner_text() for i in range(rows.count())]
    assert names == sorted(names, key=str.casefold)
    first.click()
    assert rows.first.locator("td").first.inner_text() == names[-1]
    frame.locator("input.filter").fill("word 7")
    assert [rows.nth(i).is_visible() for i in range(rows.count())].count(True) == 1


def test_the_composites_report_is_an_artifact(shop: Shop, fresh: Any) -> None:
    page = fresh(artifacts_page(shop.first.experiment_id, shop.model_id), sees="card")
    page.get_by_text("card", exact=True).first.click()
    page.get_by_text("report.html").first.click()
    frame = page.frame_locator("iframe").first
    frame.get_by_text("Labels beside their parents").wait_for()
    picture(page, "composite-report")
