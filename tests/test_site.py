"""Every page of the built site in a real browser whose way to other servers is cut off.

Needs a site (``make book``) and Chromium, Chrome or Edge. Without either the tests are skipped, and the report says so;
with CI=true they fail instead.
"""

import functools
import http.server
import re
import threading
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import ROOT, absent

SITE = ROOT / "_build" / "html"
PAGES = sorted(p for p in SITE.rglob("*.html") if "_static" not in p.parts and p != SITE / "index.html")
IDS = [p.relative_to(SITE).as_posix() for p in PAGES]
NOISE = re.compile(
    r"oneDNN|cudart|cuda_dnn|computation_placer|TF-TRT|WARNING:tensorflow|[EWI]0000 00:00|absl::|cpu_feature_guard|"
    r"DeprecationWarning|FutureWarning|UserWarning|/site-packages/"
)
pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def address():
    """The site on a port of this machine."""
    if not PAGES:
        absent("there is no site in _build/html: run `make book`")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


class Visit:
    """A page opened once, with every request, console message and error it caused."""

    def __init__(self, browser, url: str, width: int = 1280, scheme: str = "light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.requests, self.errors, self.missing = [], [], []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("requestfailed", lambda r: self.missing.append(f"{r.url}: {r.failure}"))
        self.page.on("response", lambda r: self.missing.append(f"{r.url}: {r.status}") if r.status >= 400 else None)
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.goto(url, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        if self.page.locator("pre.mermaid, div.mermaid").count():
            done = "() => [...document.querySelectorAll('.mermaid')].every(d => d.querySelector('svg') || d.offsetParent === null)"
            self.page.wait_for_function(done, timeout=20_000)
        self.page.wait_for_load_state("networkidle")

    def close(self):
        self.context.close()


@pytest.fixture(scope="module", params=PAGES or [None], ids=IDS or ["no-site"])
def visit(request, browser, address):
    if request.param is None:
        absent("there is no site in _build/html: run `make book`")
    opened = Visit(browser, f"{address}/{request.param.relative_to(SITE).as_posix()}")
    yield opened
    opened.close()


def test_asks_no_third_party(visit, address):
    outside = [url for url in visit.requests if not url.startswith((address, "data:", "blob:", "about:"))]
    assert not outside


def test_finds_all_it_asks_for_and_reports_no_error(visit):
    assert not visit.missing and not visit.errors


def test_mathematics_is_rendered(visit):
    sources = visit.page.locator("article .math, .bd-article .math").count()
    assert visit.page.locator("mjx-container").count() >= sources
    assert visit.page.locator("mjx-merror, [data-mjx-error]").count() == 0
    text = visit.page.evaluate(
        """() => { const copy = document.querySelector('article')?.cloneNode(true);
                   copy?.querySelectorAll('pre, code, script, style, mjx-assistive-mml').forEach(e => e.remove());
                   return copy?.textContent ?? '' }"""
    )
    raw = re.search(r"\$\$|\\\(|\\\[|\\frac|\\mathrm|\\begin\{", text)
    assert not raw, text[max(0, raw.start() - 60) : raw.end() + 60]


def test_markup_is_not_left_as_text(visit):
    text = visit.page.evaluate(
        """() => { const copy = document.querySelector('article')?.cloneNode(true);
                   copy?.querySelectorAll('pre, code, script, style').forEach(e => e.remove());
                   return copy?.textContent ?? '' }"""
    )
    found = re.search(r"\{(glue|term|cite|doc|ref|numref|math)[:}]|\*\*\w[^*\n]*\*\*|```|:::", text)
    assert not found, text[max(0, found.start() - 60) : found.end() + 60]


def test_diagrams_are_drawn(visit):
    for diagram in visit.page.locator(".mermaid").all():
        assert diagram.locator("svg").count() == 1
        assert "Syntax error" not in (diagram.text_content() or "")


def test_images_have_alternative_texts(visit):
    images = visit.page.evaluate(
        "() => [...document.querySelectorAll('article img')].map(i => [i.getAttribute('src'), i.getAttribute('alt') ?? ''])"
    )
    bare = [src for src, alt in images if len(alt.strip()) < 12 or re.search(r"_images|\.(png|svg)$", alt)]
    assert not bare


def test_figures_are_sharp_on_dense_screens_and_open_at_full_size(visit):
    figures = visit.page.evaluate(
        """() => [...document.querySelectorAll('article div.cell_output img')]
             .map(i => [i.src, i.naturalWidth, i.clientWidth, i.closest('a')?.href])"""
    )
    kept = {sha256(path.read_bytes()).hexdigest() for path in (ROOT / "book").rglob("pictures/*.png")}  # of a full run
    drawn = [figure for figure in figures if Path(figure[0]).stem not in kept]
    assert [src for src, points, width, link in drawn if points < 1.5 * width or link != src] == []


def test_has_language_title_and_one_heading(visit):
    assert visit.page.locator("html").get_attribute("lang") == "en"
    assert len(visit.page.title()) > 5
    shown = "() => [...document.querySelectorAll('h1')].filter(h => h.offsetParent).length"  # not the print-out's
    assert visit.page.evaluate(shown) == 1
    levels = visit.page.evaluate(
        "() => [...document.querySelectorAll('article h1, article h2, article h3, article h4')].map(h => +h.tagName[1])"
    )
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False)), levels


def test_shows_no_framework_noise(visit):
    found = NOISE.search(visit.page.locator("body").inner_text())
    assert not found, found.group()


def test_fits_a_telephone(visit):
    visit.page.set_viewport_size({"width": 390, "height": 844})
    try:
        wide = visit.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
               [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                 .map(e => e.tagName + '.' + e.className).slice(0, 8)"""
        )
        assert not wide
    finally:
        visit.page.set_viewport_size({"width": 1280, "height": 900})


def test_shows_every_line_of_code_whole(visit):
    visit.page.set_viewport_size({"width": 1440, "height": 900})
    try:
        cut = visit.page.evaluate(
            """() => [...document.querySelectorAll('article div.cell_input pre')]
                 .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60))"""
        )
        assert not cut
    finally:
        visit.page.set_viewport_size({"width": 1280, "height": 900})


def test_every_page_of_the_contents_was_built():
    import notebooks

    if not PAGES:
        absent("there is no site in _build/html: run `make book`")
    expected = {p.relative_to(ROOT).with_suffix(".html").as_posix() for p in notebooks.pages()}
    assert expected <= set(IDS)


def test_the_root_leads_to_the_start_page(browser, address):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}/index.html")
    page.wait_for_url("**/book/index.html")
    context.close()


def test_search_finds_a_page(browser, address):
    opened = Visit(browser, f"{address}/search.html?q=backbone")
    opened.page.wait_for_selector("#search-results li a")
    assert not opened.errors and all(url.startswith(address) for url in opened.requests if url.startswith("http"))
    opened.close()


def test_dark_pages_are_dark_and_readable(browser, address):
    opened = Visit(browser, f"{address}/book/index.html", scheme="dark")
    background = opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", background)[:3])) < 80
    opened.close()


def test_tables_can_be_read_in_the_dark(browser, address):
    page = next((p for p in PAGES if "tl-table" in p.read_text(encoding="utf-8")), None)
    if page is None:
        absent("no page with a table is built yet")
    opened = Visit(browser, f"{address}/{page.relative_to(SITE).as_posix()}", scheme="dark")
    colours = opened.page.evaluate(
        """() => {
            const cell = document.querySelector(".tl-table td");
            const card = cell.closest(".text_html") || cell.parentElement;
            return [getComputedStyle(cell).color, getComputedStyle(card).backgroundColor];
        }"""
    )
    letters, card = ([float(n) for n in re.findall(r"[\d.]+", colour)] for colour in colours)
    assert min(letters[:3]) > 150 and (max(card[:3]) < 80 or card[3:] == [0.0]), colours
    opened.close()


def test_code_can_be_copied_and_opened_elsewhere(browser, address):
    page = next((p for p in PAGES if "vgg16-cifar10" in p.parts), None)
    if page is None:
        absent("no chapter is built yet")
    opened = Visit(browser, f"{address}/{page.relative_to(SITE).as_posix()}")
    assert opened.page.locator("button.copybtn").count() > 0
    colab = opened.page.locator("a[href*='colab.research.google.com']").first.get_attribute("href")
    import sync

    assert colab.endswith(f"/{sync.slug()}/blob/main/book/vgg16-cifar10/{page.stem}.ipynb")
    opened.close()


def test_folded_answers_open_with_the_keyboard(browser, address):
    page = next((p for p in PAGES if "<details>" in p.read_text(encoding="utf-8")), None)
    if page is None:
        absent("no page with folded answers is built yet")
    opened = Visit(browser, f"{address}/{page.relative_to(SITE).as_posix()}")
    summary = opened.page.locator("article details:not(.hide) > summary").first
    summary.focus()
    opened.page.keyboard.press("Enter")
    assert summary.evaluate("s => s.parentElement.open")
    opened.close()
