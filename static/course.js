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
