// Printed sentences are wrapped on a telephone, too; what is printed in columns keeps its lines and scrolls.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("div.cell_output div.highlight pre").forEach((box) => {
    box.classList.toggle("tl-sentences", !/\S {2,}\S/.test(box.textContent));
  });
});

// Boxes that scroll sideways can be reached with the keyboard; wide plain tables scroll instead of widening the page.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".bd-article table").forEach((table) => {
    if (table.closest(".tl-table, .pst-scrollable-table-container")) return;
    const box = document.createElement("div");
    box.className = "pst-scrollable-table-container";
    table.replaceWith(box);
    box.append(table);
  });
  document.querySelectorAll(".bd-article pre, .pst-scrollable-table-container").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  });
});

// A hidden cell among the exercises is a solution, elsewhere code aside from the thread: say which.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("details.hide > summary > p").forEach((words) => {
    if (!/code cell (content|source)$/.test(words.textContent)) return;
    const what = words.closest('section[id^="exercise"]') ? "solution" : "code";
    words.textContent = `${words.classList.contains("collapsed") ? "Show" : "Hide"} the ${what}`;
  });
});

// A diagram is never shrunk until its letters cannot be read: from 70 % of its size on, its box scrolls.
const SMALLEST = 0.7;
const fitDiagram = (svg) => {
  const natural = svg.viewBox?.baseVal?.width;
  const box = svg.closest(".mermaid");
  if (!natural || !box?.clientWidth) return;
  const width = natural * Math.min(1, Math.max(SMALLEST, box.clientWidth / natural));
  svg.style.setProperty("width", `${width}px`, "important");
  svg.style.setProperty("max-width", "none", "important");
  if (width > box.clientWidth + 1) box.tabIndex = 0;
  else box.removeAttribute("tabindex");
};
const fitDiagrams = () => document.querySelectorAll(".mermaid > svg").forEach(fitDiagram);
const boxes = new ResizeObserver(fitDiagrams); // the window, or a sidebar that was folded away
new MutationObserver((changes) => {
  const drawn = changes.filter((c) => c.target.classList?.contains("mermaid"));
  drawn.forEach((c) => boxes.observe(c.target));
  if (drawn.length) fitDiagrams();
}).observe(document.documentElement, { childList: true, subtree: true });
